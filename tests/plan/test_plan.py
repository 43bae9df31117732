"""The plan: all that will be done, from recipe, targets and cards alone."""

import pytest

from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.plan import make_plan, sources_of
from ensemble.storage.em_pyramids import EM
from ensemble.support.errors import RecipeError
from tests.support.inference import Known, card
from tests.support.volumes import noise, write_em

GRID = Grid((32, 32, 32), (8, 8, 8), (4, 4, 4))
TARGET = Target("1", "d", GRID, ("nuc", "mito", "er"))
MODELS = "name: r\nsources: {m: {model: 'models:/tiny@a'}, n: {model: 'models:/tiny@b', tta: mirror}}\n"


def planned(tmp_path, text: str, target: Target = TARGET):
    (tmp_path / "r.yaml").write_text(MODELS + text)
    if not (tmp_path / "d").exists():
        write_em(tmp_path, "d", [(noise(GRID.shape), GRID)])
    known = Known(card(patch_voxels=16))
    return make_plan(recipe_file.load_recipe(tmp_path / "r.yaml"), [target], {"m": known, "n": known}, EM(tmp_path))


def test_each_source_runs_once_over_a_crop_for_the_classes_that_need_it(tmp_path):
    mixed = "defaults: {source: m}\nclasses: {er: {source: {mean: [m, n]}}}\n"
    plan = planned(tmp_path, mixed)
    assert [(job.source, job.crop, job.classes) for job in plan.jobs] == [
        ("m", "1", ("mito", "nuc", "er")),
        ("n", "1", ("er",)),
    ]
    assert sources_of(plan.recipe, TARGET) == {"m", "n"}


def test_classes_that_nobody_predicts_are_not_claimed_and_cost_nothing(tmp_path):
    plan = planned(tmp_path, "defaults: {source: m}\nempty: [er]\n")
    (crop,) = plan.crops
    assert (crop.claimed, crop.unclaimed) == (("nuc", "mito"), ("er",))
    assert [job.classes for job in plan.jobs] == [("mito", "nuc")]


def test_a_class_made_of_others_brings_them_along(tmp_path):
    union = "defaults: {source: m}\nclasses: {nuc: {source: {union: [mito, er]}}}\n"
    plan = planned(tmp_path, union, Target("1", "d", GRID, ("nuc",)))
    assert set(plan.crops[0].routes) == {"nuc", "mito", "er"}
    assert plan.jobs[0].classes == ("mito", "er")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: {nuc: {source: {union: [mito]}}, mito: {source: {union: [nuc]}}}\n", "made of each other"),
        ("defaults: {source: m}\nclasses: {golgi: {source: m}}\n", "golgi is routed to m, which predicts only"),
    ],
)
def test_what_cannot_be_made_is_told_before_anything_is(tmp_path, text, message):
    target = Target("1", "d", GRID, ("golgi",) if "golgi" in text else ("nuc", "mito"))
    with pytest.raises(RecipeError, match=message) as caught:
        planned(tmp_path, text, target)
    assert f"{tmp_path}/r.yaml:" in str(caught.value)


def test_the_official_manifest_can_be_planned_class_by_class():
    targets = manifest.official_manifest()
    recipe = recipe_file.load_recipe("demo.yaml")
    assert all(sources_of(recipe, target) <= {"mito", "nuc", "multi"} for target in targets)
