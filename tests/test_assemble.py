"""Assembling crops: every voxel a codeword, by brute force from the class table; filters keep their word."""

from collections.abc import Mapping

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.core.tiling import blocks
from ensemble.decode.assembling import CropAssembly, GroupOutcome, assemble_group, groups_of
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import TILE_SHAPE
from ensemble.methods.method_table import Step
from ensemble.methods.steps import METHODS
from ensemble.plan.budget import Budget
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import EmptySource, Expression, NamedSource, OfClasses, Route

SHAPE = (70, 24, 26)  # two slabs
GRID = Grid(SHAPE, (4, 8, 8), (2, 4, 4))
SCORED = manifest.official_manifest()[0].classes


class Given:
    """A field of known probabilities on the whole crop."""

    def __init__(self, values: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.values, self._ids = values, ids

    def _place(self, block: Grid) -> tuple[slice, ...]:
        start = [round(GRID.position_voxels(a, block.origin_nm[a])) for a in range(3)]
        return tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))

    def probability(self, block: Grid, method: str) -> np.ndarray:
        return self.values[self._place(block)]

    def over(self, block: Grid) -> "Given":
        return self

    def bytes_over(self, block: Grid) -> int:
        return 1 << 30  # so that bands are as small as can be

    def bounds(self, block: Grid) -> tuple[float, float]:
        here = self.values[self._place(block)]
        return float(here.min()), float(here.max())

    def ids(self, block: Grid) -> np.ndarray | None:
        return None if self._ids is None else self._ids[self._place(block)]


def step(name: str, **said) -> Step:
    method = METHODS.by_name[name]
    return Step(method, method.parameters.model_validate(said).model_dump())


S = NamedSource("s")


def route(source: Expression = S, threshold: float = 0.5, weight=1.0, steps: tuple = ()) -> Route:
    return Route(source, threshold, weight, "linear", tuple(steps), "test")


def run(
    routes: Mapping[str, Route], fields: Mapping[str, Given], *, joint: bool, workers: int = 1
) -> tuple[dict[str, np.ndarray], GroupOutcome]:
    """The arrays as written, and the outcome."""
    written: dict[str, np.ndarray] = {}

    def create(name: str, dtype: np.dtype, *, keep: bool = False) -> np.ndarray:
        assert keep == (name in written)
        if not keep:
            written[name] = np.zeros(SHAPE, dtype)
        return written[name]

    scratch: dict[str, np.ndarray] = {}

    def temporary(name: str, dtype: np.dtype, *, keep: bool = False) -> np.ndarray:
        if not keep or name not in scratch:
            scratch[name] = np.zeros(SHAPE, dtype)
        return scratch[name]

    target = Target("1", "d", GRID, tuple(sorted(routes, key=lambda n: taxonomy.all_classes()[n].id)))
    claimed = tuple(n for n in target.classes if not isinstance(routes[n].source, EmptySource))
    plan = CropPlan(target, dict(routes), claimed, ())
    probability = Probability(plan, {(name, "s"): field for name, field in fields.items()})
    crop = CropAssembly(plan, probability, temporary, create, Budget(workers=workers))
    total = GroupOutcome()
    for group in groups_of(plan, joint=joint):
        outcome = assemble_group(crop, group, joint=joint)
        total.decoding.add(outcome.decoding)
        total.objects.update(outcome.objects)
    return written, total


def cloud(rng: np.random.Generator) -> Given:
    p = ndimage.gaussian_filter(rng.random(SHAPE), 2)
    return Given(((p - p.min()) / np.ptp(p)).astype(np.float32))


def legal(claimed: list[str]) -> set[frozenset[str]]:
    """Codewords straight from the class table."""
    rows = taxonomy.all_classes()
    return {frozenset()} | {
        frozenset(c for c in claimed if atom in (rows[c].parts or (c,))) for atom in rows if not rows[atom].parts
    }


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


@settings(max_examples=25, deadline=None)
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


def test_without_filters_the_arrays_are_the_codewords_chosen_voxel_by_voxel() -> None:
    rng = np.random.default_rng(5)
    names = ("mito", "mito_mem", "mito_lum", "cell", "nuc")
    fields = {name: cloud(rng) for name in names}
    written, outcome = run({name: route(threshold=0.4) for name in names}, fields, joint=True)
    words = sorted(legal(list(names)), key=len)
    logits = {
        n: np.log(np.clip(f.values, 1e-9, 1 - 1e-6) / np.clip(1 - f.values, 1e-6, 1)) - np.log(0.4 / 0.6)
        for n, f in fields.items()
    }
    for voxel in [(3, 4, 5), (10, 20, 7), (65, 12, 12), (40, 0, 25), (69, 23, 0)]:
        totals = {w: sum(np.clip(logits[n][voxel], -5.83, 6.7) for n in w) for w in words}
        got = frozenset(n for n in names if written[n][voxel])
        assert totals[got] >= max(totals.values()) - 0.01
    for name in names:
        alone, now = fields[name].values > np.float32(0.4), written[name] > 0
        counted = outcome.decoding.by_class[name]
        assert (counted.alone, counted.removed, counted.added) == (
            alone.sum(),
            (alone & ~now).sum(),
            (now & ~alone).sum(),
        )
        by_tile = [np.count_nonzero((alone != now)[tile]) for tile in blocks(SHAPE, TILE_SHAPE)]
        most = tuple(slice(at, at + size) for at, size in zip(counted.most_at_voxels, TILE_SHAPE, strict=True))
        assert counted.most_voxels == max(by_tile) == np.count_nonzero((alone != now)[most])
    above = np.stack([fields[name].values.ravel() > np.float32(0.4) for name in names], axis=1)
    sets = [frozenset(np.array(names)[row].tolist()) for row in above]
    before = outcome.decoding.before
    assert before.voxels == sum(held not in legal(list(names)) for held in sets) > 0
    assert before.relations["mito_mem outside mito"] == sum("mito_mem" in s and "mito" not in s for s in sets)
    assert before.relations["nuc and mito at once"] == sum({"mito", "nuc"} <= s for s in sets)


def test_alone_each_class_is_p_above_its_threshold() -> None:
    rng = np.random.default_rng(6)
    fields = {name: cloud(rng) for name in ("mito", "nuc", "er_mem_all", "er_mem", "eres_mem", "ne_mem")}
    routes = {name: route(threshold=0.45) for name in fields}
    routes["er_mem_all"] = route(OfClasses("union", ("er_mem", "eres_mem", "ne_mem")), 0.6, 0.0)
    written, _ = run(routes, fields, joint=False)
    assert np.array_equal(written["mito"], fields["mito"].values > 0.45)
    largest = np.maximum.reduce([fields[n].values for n in ("er_mem", "eres_mem", "ne_mem")])
    assert np.array_equal(written["er_mem_all"], largest > 0.6)


def test_a_confident_hard_specialist_is_not_erased_by_its_unsure_parts() -> None:
    sure, unsure = Given(np.full(SHAPE, 0.9, np.float32)), Given(np.full(SHAPE, 0.2, np.float32))
    fields = {"mito": sure, "mito_mem": unsure, "mito_lum": unsure}
    soft, _ = run({n: route() for n in fields}, fields, joint=True)
    hard, _ = run({n: route(weight="hard" if n == "mito" else 1.0) for n in fields}, fields, joint=True)
    assert soft["mito"].all()  # its unscored ribosomes are a codeword of mito alone
    assert hard["mito"].all()
    assert not hard["mito_mem"].any()


def test_the_hard_class_listed_first_wins_whatever_its_id() -> None:
    sure = Given(np.full(SHAPE, 0.9, np.float32))
    for names in (("mito", "nuc"), ("nuc", "mito")):
        written, _ = run({n: route(weight="hard") for n in names}, dict.fromkeys(names, sure), joint=True)
        assert written[names[0]].all()
        assert not written[names[1]].any()


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
