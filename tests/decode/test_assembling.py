"""Assembling crops: every voxel a codeword, by brute force from the class table; filters keep their word."""

from collections.abc import Mapping

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.manifest import Target
from ensemble.decode.assembling import groups_of
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import EmptySource, NamedSource, Route
from tests.support.known_crop import GRID, SHAPE, Given, cloud, legal, route, run, step

SCORED = manifest.official_manifest()[0].classes


def sets_written(written: Mapping[str, np.ndarray], claimed: list[str]) -> set[frozenset[str]]:
    stacked = np.stack([written[name].ravel() > 0 for name in claimed], axis=1)
    return {frozenset(np.array(claimed)[row].tolist()) for row in np.unique(stacked, axis=0)}


CHAINS = {
    False: [(), (step("drop_small", min_size_voxels=60),), (step("fill_holes"), step("keep_largest", count=2)),
            (step("smooth", sigma_nm=6),), (step("hysteresis", high=0.8),)],
    True: [(), (step("components"), step("drop_small", min_size_voxels=80)),
           (step("watershed", min_distance_nm=24), step("drop_small", min_size_voxels=50)),
           (step("hysteresis", high=0.7), step("watershed", min_distance_nm=16)),
           (step("drop_small", min_size_nm3=9000),)],
}  # fmt: skip


MIN_SIZE = {"min_size_voxels": 1, "min_size_nm3": 1 / GRID.voxel_volume_nm3}


@st.composite
def recipes(draw: st.DrawFn) -> tuple[dict[str, Route], int]:
    subsets = [t.classes for t in manifest.official_manifest()] + [None]
    names = draw(st.sampled_from(subsets)) or tuple(draw(st.sets(st.sampled_from(SCORED), min_size=1, max_size=15)))
    routes = {}
    for name in draw(st.permutations(names)):
        chain = draw(st.sampled_from(CHAINS[taxonomy.is_instance(name)]))
        weight = draw(st.sampled_from([1.0, 1.0, 0.0, 2.5, "hard"]))
        source = draw(st.sampled_from([NamedSource("s")] * 5 + [EmptySource()]))
        routes[name] = route(source, draw(st.floats(0.2, 0.8)), weight, chain)
    return routes, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=15)
@given(recipes())
def test_in_joint_mode_every_voxel_written_is_a_codeword_and_every_object_keeps_its_size(recipe) -> None:
    routes, seed = recipe
    rng = np.random.default_rng(seed)
    written, outcome = run(routes, {name: cloud(rng) for name in routes}, joint=True)
    claimed = [name for name in routes if not isinstance(routes[name].source, EmptySource)]
    assert set(written) == set(routes)
    assert not any(written[name].any() for name in routes if name not in claimed)
    if claimed:
        assert sets_written(written, claimed) <= legal(claimed)
    for name in filter(taxonomy.is_instance, claimed):
        for s in routes[name].steps:
            if s.method.name == "drop_small" and written[name].any():
                least = max((s.parameters[key] or 0) * scale for key, scale in MIN_SIZE.items())
                by_id = written[name] if written[name].max() > 1 else cc3d.connected_components(written[name])
                assert np.bincount(by_id.ravel().astype(np.int64))[1:].min() >= least
        if any(s.method.name in ("components", "watershed") for s in routes[name].steps):
            ids = set(np.unique(written[name]).tolist()) - {0}
            assert ids == set(range(1, outcome.objects[name] + 1))


def test_a_dropped_nucleus_leaves_its_voxels_to_the_cell() -> None:
    nuc = np.full(SHAPE, 0.1, np.float32)
    nuc[30:33, 5:8, 5:8] = 0.9
    fields = {
        "nuc": Given(nuc),
        "cell": Given(np.full(SHAPE, 0.9, np.float32)),
        "cyto": Given(np.where(nuc > 0.5, 0.4, 0.9).astype(np.float32)),
        "nucpl": Given(nuc),
    }
    routes = {n: route() for n in fields}
    routes["nuc"] = route(steps=(step("components"), step("drop_small", min_size_voxels=100)))
    written, _ = run(routes, fields, joint=True)
    assert not written["nuc"].any()
    assert not written["nucpl"].any()
    assert written["cell"].all()


def test_holes_are_filled_across_slabs_and_open_ones_are_not() -> None:
    p = np.full(SHAPE, 0.1, np.float32)
    p[58:69, 5:16, 5:16] = 0.9
    p[61:66, 8:12, 8:12] = 0.1  # a hole across the border of the slabs
    p[2:10, 0:6, 2:10] = 0.9
    p[4:8, 0:4, 4:8] = 0.1  # open to the crop's border
    written, _ = run({"mito": route(steps=(step("fill_holes"),))}, {"mito": Given(p)}, joint=False)
    assert written["mito"][58:69, 5:16, 5:16].all()
    assert not written["mito"][4:8, 0:4, 4:8].any()
    kept, _ = run({"mito": route(steps=(step("fill_holes", max_size_nm3=1000),))}, {"mito": Given(p)}, joint=False)
    assert not kept["mito"][61:66, 8:12, 8:12].any()


def test_ids_of_a_label_source_survive() -> None:
    ids = np.zeros(SHAPE, np.uint32)
    ids[5:15, 5:15, 5:10], ids[5:15, 5:15, 10:15] = 300, 70000  # touching
    field = Given((ids > 0).astype(np.float32), ids)
    written, _ = run({"mito": route(steps=(step("keep_ids"),))}, {"mito": field}, joint=True)
    pairs = set(zip(ids.ravel().tolist(), written["mito"].ravel().tolist(), strict=True))
    assert len(pairs) == 3


def test_ids_never_wrap() -> None:
    p = np.zeros(SHAPE, np.float32)
    p[::3, ::3, ::3] = 1
    written, outcome = run({"ves": route(steps=(step("components"),))}, {"ves": Given(p)}, joint=False)
    count = int((p > 0).sum())
    assert count > 255
    assert outcome.objects["ves"] == written["ves"].max() == count
    assert written["ves"].dtype == np.uint16


def test_an_empty_prediction_is_ordinary() -> None:
    chain = (step("watershed", min_distance_nm=20), step("drop_small", min_size_voxels=5))
    routes = {
        "mito": route(steps=chain),
        "cell": route(),
        "er": route(steps=(step("fill_holes"), step("keep_largest"))),
    }
    nothing = Given(np.zeros(SHAPE, np.float32))
    for joint in (True, False):
        written, _ = run(routes, dict.fromkeys(routes, nothing), joint=joint)
        assert not any(array.any() for array in written.values())


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_change_a_byte(workers: int) -> None:
    rng = np.random.default_rng(9)
    fields = {name: cloud(rng) for name in ("mito", "nuc", "cell", "er")}
    routes = {
        n: route(steps=CHAINS[taxonomy.is_instance(n)][2 if taxonomy.is_instance(n) else 1])
        for n in ("nuc", "mito", "er", "cell")
    }
    outs = [run(routes, fields, joint=True, workers=count)[0] for count in (1, workers)]
    assert all(np.array_equal(outs[0][name], outs[1][name]) for name in routes)


def test_classes_decided_together_are_one_group_and_empty_ones_stand_alone() -> None:
    routes = {name: route() for name in ("mito", "nuc")} | {"er": route(EmptySource())}
    plan = CropPlan(Target("1", "d", GRID, ("nuc", "mito", "er")), routes, ("nuc", "mito"), ())
    assert groups_of(plan, joint=True) == [("nuc", "mito"), ("er",)]
    assert groups_of(plan, joint=False) == [("nuc",), ("mito",), ("er",)]
