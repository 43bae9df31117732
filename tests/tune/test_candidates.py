"""The sources that may be tried for a class."""

from pathlib import Path

import pytest

from ensemble.core import manifest
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.recipe import ModelSource
from ensemble.support.errors import RecipeError
from ensemble.tune.candidates import Candidates, narrowed_by
from registry.store import Registry
from tests.support.small_tuning import RECIPE


def candidates(place, *, registered: bool = False) -> tuple[Candidates, manifest.Target]:
    (target,) = manifest.load_manifest(place / "manifest.csv")
    recipe = recipe_file.load_recipe(place / "mine.yaml")
    found = Candidates.of(recipe, [target], place / "truth.zarr", Registry(), registered=registered, augment=True)
    return found, target


def test_a_source_may_predict_what_it_holds_where_there_is_truth(place):
    found, target = candidates(place)
    assert found.for_class("mito", target, str(place / "data")) == ["a", "b"]
    (place / "data/b/crop5/mito/.zattrs").write_text("{}")
    assert found.for_class("mito", target, str(place / "data")) == ["a"]
    (place / "truth.zarr/crop5/mito").rename(place / "truth.zarr/crop5/other")
    assert found.for_class("mito", target, str(place / "data")) == []


def test_what_a_recipe_narrows_is_left_out(place):
    Path("mine.yaml").write_text(RECIPE + "tune: {mito: fixed, nuc: {sources: [b]}}\n")
    found, target = candidates(place)
    assert found.for_class("mito", target, str(place / "data")) == []
    assert found.for_class("nuc", target, str(place / "data")) == ["b"]
    Path("mine.yaml").write_text(RECIPE + "tune: {nuc: {sources: [c]}}\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:7: tune.nuc.sources\[0\]: unknown source 'c'"):
        narrowed_by(recipe_file.load_recipe("mine.yaml"))


def test_registered_models_that_the_recipe_does_not_name_are_beside_it_with_their_twins(place, both_versions):
    found, _ = candidates(place, registered=True)
    assert found.extra == {
        "m_m": ModelSource("models:/m@champion"),
        "m_m_mirrored": ModelSource("models:/m@champion", "mirror"),
    }
    assert found.augmented == {"m_m_mirrored"}
    assert found.may("m_m", "mito")
