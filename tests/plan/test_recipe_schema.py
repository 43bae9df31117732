"""What a recipe file may say: keys, types and bounds."""

import pytest
from pydantic import ValidationError

from ensemble.plan.recipe_schema import RecipeFile
from ensemble.support.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: [a]\n", "final.yaml:1: name: must be a valid string"),
        ("name: a\nsourcs: {}\n", "final.yaml:2: sourcs: unknown key; did you mean 'sources'?"),
        ("name: a\ndefaults: {threshold: high}\n", "final.yaml:2: defaults.threshold: must be a valid number"),
        ("name: a\ndefaults: {weight: soft}\n", "final.yaml:2: defaults.weight: "),
        ("name: a\nclasses: {mito: 3}\n", "final.yaml:2: classes.mito: must hold keys and values, not 3"),
        ("classes: {}\n", "final.yaml:1: name: is missing"),
    ],
)
def test_what_is_no_recipe_is_told_by_key(load, tmp_path, text, fault):
    with pytest.raises(RecipeError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path}/{fault}")


def test_a_recipe_of_a_name_alone_is_one(load):
    empty = load("name: nothing\n")
    assert (empty.name, empty.sources, empty.rules, empty.consistency) == ("nothing", {}, {}, "none")


@pytest.mark.parametrize(("threshold", "right"), [(0.01, True), (0, False), (1, False), (float("nan"), False)])
def test_a_threshold_lies_between_nothing_and_certainty(threshold, right):
    data = {"name": "a", "defaults": {"threshold": threshold}}
    if right:
        assert RecipeFile.model_validate(data).defaults.threshold == threshold
    else:
        with pytest.raises(ValidationError):
            RecipeFile.model_validate(data)


@pytest.mark.parametrize(
    ("crop", "meant"), [("559", "559"), ("'55*'", "55*"), ("crop559", "crop559"), ("true", None), ("5.5", None)]
)
def test_a_crop_of_a_condition_is_a_name_or_the_number_it_is_called_by(load, crop, meant):
    text = f"name: a\nclasses: {{nuc: {{source: empty, when: [{{crop: {crop}, source: empty}}]}}}}\n"
    if meant is None:
        with pytest.raises(RecipeError, match="must be a valid string"):
            load(text)
    else:
        ((condition, _),) = load(text).rules["nuc"].when
        assert condition.crop == meant
