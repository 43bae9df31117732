"""The sources that may be tried for a class."""

from pathlib import Path

import pytest
import torch

from ensemble.core import manifest
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.recipe import ModelSource
from ensemble.plan.request import Request
from ensemble.support.errors import RecipeError
from ensemble.tune.candidates import Candidates, narrowed_by
from ensemble.tune.tuning import TuningTask
from registry.store import Registry
from tests.support.networks_small import card, unet
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


def test_the_recipes_own_sources_are_all_unless_that_is_said(place, both_versions):
    found, _ = candidates(place)
    assert set(found.sources) == {"a", "b"}
    assert TuningTask(Request("mine.yaml", place), place, place).registered is False


@pytest.mark.parametrize(
    ("voxel_nm", "tried"), [(4, True), (3.9, False), (16, True), ((8, 8, 16.5), False), ((4, 8, 16), True)]
)
def test_a_model_of_far_other_voxels_is_not_tried_and_that_is_said(place, own_versions, voxel_nm, tried):
    state = unet(3).state_dict()
    torch.save(state, "c.pt")
    own_versions.register(Path("c.pt"), card(name="far", voxel_size_nm=voxel_nm), alias="champion")
    found, target = candidates(place, registered=True)
    assert ("m_far" in found.for_class("mito", target, str(place / "data"))) is tried
    assert ("m_far_mirrored" in found.for_class("mito", target, str(place / "data"))) is tried
    said = [line for line in found.skipped(str(place / "data")) if line.startswith("m_far: ")]
    assert len(said) == (not tried)
    assert all(line.endswith("the crop's 8 (crop 5)") for line in said)


def test_a_model_that_the_recipe_itself_uses_is_tried_whatever_its_voxels(place, own_versions):
    torch.save(unet(3).state_dict(), "c.pt")
    own_versions.register(Path("c.pt"), card(name="far", voxel_size_nm=32), alias="champion")
    named = RECIPE.replace("sources:", "sources:\n  far: {model: 'models:/far@champion'}")
    Path("mine.yaml").write_text(named + "classes: {mito: {source: far}}\n")
    found, target = candidates(place)
    assert found.for_class("mito", target, str(place / "data")) == ["far", "a", "b", "far_mirrored"]
    assert found.for_class("nuc", target, str(place / "data")) == ["a", "b"]


def test_registered_models_that_the_recipe_does_not_name_are_beside_it_with_their_twins(place, both_versions):
    found, _ = candidates(place, registered=True)
    assert found.extra == {
        "m_m": ModelSource("models:/m@champion"),
        "m_m_mirrored": ModelSource("models:/m@champion", "mirror"),
    }
    assert found.augmented == {"m_m_mirrored"}
    assert found.may("m_m", "mito")
