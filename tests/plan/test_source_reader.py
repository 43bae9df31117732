"""One source of a recipe: what it may say, and what is said only of sources of another kind."""

import pytest

from ensemble.plan.recipe import LabelSource, ModelSource, PredictionSource
from ensemble.plan.recipe_schema import SourceEntry
from ensemble.plan.source_reader import read_source
from ensemble.support.errors import RecipeError

MODEL, PREDICTIONS, LABELS = {"model": "models:/m@champion"}, {"predictions": "{crop}"}, {"labels": "{crop}"}


def read(**said):
    return read_source(
        "m", SourceEntry.model_validate(said), lambda key, what: RecipeError(f"{'.'.join(map(str, key))}: {what}")
    )


def test_what_is_not_said_is_as_usual_or_as_the_card_says() -> None:
    assert read(**MODEL) == ModelSource("models:/m@champion", "none", "as trained", None, None)
    assert read(**PREDICTIONS) == PredictionSource("{crop}")
    assert read(**LABELS) == LabelSource("{crop}")


def test_a_model_may_be_run_otherwise_than_its_card_says() -> None:
    found = read(**MODEL, overlap=0.25, context=False, tta="mirror", em="any")
    assert found == ModelSource("models:/m@champion", "mirror", "any", overlap=0.25, context=False)
    assert read(**MODEL, overlap=0) == ModelSource("models:/m@champion", overlap=0.0)


@pytest.mark.parametrize("kind", [PREDICTIONS, LABELS])
@pytest.mark.parametrize(
    ("option", "said"), [("tta", "mirror"), ("em", "any"), ("overlap", 0), ("overlap", 0.25), ("context", False)]
)
def test_what_only_a_model_has_is_refused_of_others(kind, option, said) -> None:
    with pytest.raises(RecipeError, match=rf"^sources\.m\.{option}: only a model "):
        read(**kind, **{option: said})


@pytest.mark.parametrize("kind", [MODEL, LABELS])
@pytest.mark.parametrize(("option", "said"), [("channels", ["mito"]), ("activation", "sigmoid"), ("scale", 255)])
def test_what_only_stored_predictions_have_is_refused_of_others(kind, option, said) -> None:
    with pytest.raises(RecipeError, match=rf"^sources\.m\.{option}: only stored predictions have "):
        read(**kind, **{option: said})
