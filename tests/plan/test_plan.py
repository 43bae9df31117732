"""The plan: all that will be done, from recipe, targets and cards alone."""

import pytest

from ensemble.core import manifest
from ensemble.core.box import Box
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


def test_a_recipe_decides_overlap_and_context_where_it_speaks_and_the_card_elsewhere(tmp_path):
    inner = Target("1", "d", GRID.sub(Box((8, 8, 8), (24, 24, 24))), ("nuc",))
    sources = "\n".join(
        f"  {name}: {{model: 'models:/tiny@a'{more}}}"
        for name, more in {"a": "", "b": ", overlap: 0.75", "c": ", context: false"}.items()
    )
    (tmp_path / "r.yaml").write_text(f"name: r\nsources:\n{sources}\ndefaults: {{source: {{mean: [a, b, c]}}}}\n")
    write_em(tmp_path, "d", [(noise(GRID.shape), GRID)])
    recipe, known = recipe_file.load_recipe(tmp_path / "r.yaml"), Known(card(patch_voxels=8))
    plan = make_plan(recipe, [inner], dict.fromkeys("abc", known), EM(tmp_path))
    starts = {job.source: job.starts[0] for job in plan.jobs}
    assert starts == {"a": (0, 4, 9, 14), "b": (0, 4, 8, 12, 16), "c": (0, 4, 8)}
    assert {job.source: job.context_patches for job in plan.jobs} == {"a": 4**3 - 3**3, "b": 0, "c": 0}
    off = make_plan(recipe, [inner], dict.fromkeys("abc", Known(card(patch_voxels=8, context=False))), EM(tmp_path))
    assert [len(job.starts[0]) for job in off.jobs] == [3, 5, 3]


def test_voxels_to_interpolate_towards_are_kept_only_where_the_crops_are_not_the_networks(tmp_path):
    same = GRID.sub(Box((8, 8, 8), (24, 24, 24)))
    between = Grid(same.shape, same.voxel_size_nm, tuple(v + 4 for v in same.origin_nm))
    kept = []
    for grid in (same, between):
        (one,) = planned(tmp_path, "defaults: {source: m}\n", Target("1", "d", grid, ("nuc",))).jobs
        kept.append(one.needed.shape)
    assert kept == [(16, 16, 16), (19, 19, 19)]


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
