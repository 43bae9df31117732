"""One source of a recipe: what it may say, and what is said only of sources of another kind."""

import pytest

from ensemble.plan.recipe import LabelSource, ModelSource, PredictionSource
from ensemble.plan.recipe_schema import SourceEntry
from ensemble.plan.source_reader import read_source
from ensemble.storage.given_grid import GivenGrid
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


@pytest.mark.parametrize("kind", [PREDICTIONS, LABELS])
def test_a_source_tells_where_an_array_lies_whose_file_does_not(kind) -> None:
    numbers = {"voxel_size_nm": [40, 4, 4], "origin_nm": [20, 2, 2], "axes": "xyz"}
    assert read(**kind, grid="crop").grid == GivenGrid(is_crop=True)
    assert read(**kind, grid=numbers).grid == GivenGrid((40, 4, 4), (20, 2, 2), "xyz")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({**MODEL, "grid": "crop"}, r"sources\.m\.grid: only stored predictions and labels"),
        ({**LABELS, "grid": {}}, r"sources\.m\.grid: says nothing"),
        ({**LABELS, "grid": {"axes": "xyy"}}, r"sources\.m\.grid\.axes: 'xyy' does not name each of z, y, x once"),
        ({**PREDICTIONS, "channels": ["mito"], "grid": {"axes": "xyz"}}, r"does not name each of z, y, x, c once"),
        ({**LABELS, "grid": {"crop": True, "origin_nm": [0, 0, 0]}}, r"sources\.m\.grid\.origin_nm: "),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(said, message) -> None:
    with pytest.raises(RecipeError, match=message):
        read(**said)
