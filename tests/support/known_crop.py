"""A crop of two slabs whose probabilities are known, assembled into plain arrays."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from scipy import ndimage

from ensemble.core import classes as taxonomy
from ensemble.core.box import Box, Slices
from ensemble.core.box_array import MemoryArray
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.decode.assembling import GroupOutcome, assemble_group, groups_of
from ensemble.decode.mixing import Probability
from ensemble.decode.pieces import CropAssembly
from ensemble.engine.here import Here
from ensemble.engine.work import Work, done
from ensemble.methods.method_table import Step
from ensemble.methods.steps import METHODS
from ensemble.plan.budget import Budget
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import EmptySource, Expression, NamedSource, Route

SHAPE = (70, 24, 26)  # two slabs
GRID = Grid(SHAPE, (4, 8, 8), (2, 4, 4))


class Given:
    """A field of known probabilities on the whole crop."""

    def __init__(self, values: np.ndarray, ids: np.ndarray | None = None) -> None:
        self.values, self._ids = values, ids

    def _place(self, block: Grid) -> Slices:
        start = (round(GRID.position_voxels(a, block.origin_nm[a])) for a in range(3))
        return Box.at(start, block.shape).slices

    def probability(self, block: Grid, method: str) -> np.ndarray:
        return self.values[self._place(block)]

    def over(self, block: Grid) -> "Given":
        return self

    def bytes_over(self, block: Grid) -> int:
        return 1 << 30  # so that bands are as small as can be

    top: int | None = None

    def highest(self) -> int | None:
        return self.top

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


def plan_of(routes: Mapping[str, Route]) -> CropPlan:
    """Of the crop, in which all classes with a source are claimed."""
    target = Target("1", "d", GRID, tuple(sorted(routes, key=lambda n: taxonomy.all_classes()[n].id)))
    claimed = tuple(n for n in target.classes if not isinstance(routes[n].source, EmptySource))
    return CropPlan(target, dict(routes), claimed, ())


def run(
    routes: Mapping[str, Route], fields: Mapping[str, Given], *, joint: bool, workers: int = 1
) -> tuple[dict[str, np.ndarray], GroupOutcome]:
    """The arrays as written, and the outcome."""
    written: dict[str, np.ndarray] = {}
    plan = plan_of(routes)
    probability = Probability(plan, {(name, "s"): field for name, field in fields.items()})

    def final(name: str, dtype: np.dtype) -> MemoryArray:
        return MemoryArray(written.setdefault(name, np.zeros(SHAPE, dtype)))

    def work(group: tuple[str, ...]) -> Work[GroupOutcome]:
        scratch: dict[str, MemoryArray] = {}

        def temporary(name: str, dtype: np.dtype) -> MemoryArray:
            return scratch.setdefault(name, MemoryArray.zeros(SHAPE, dtype))

        crop = CropAssembly(plan, probability, temporary, final, Budget(workers=workers))
        return assemble_group(crop, group, joint=joint)

    total = GroupOutcome()
    with Here(workers) as engine:
        outcomes = [outcome for _, outcome in done(engine, map(work, groups_of(plan, joint=joint)))]
    for outcome in outcomes:
        total.decoding.add(outcome.decoding)
        total.objects.update(outcome.objects)
        total.highest.update(outcome.highest)
    return written, total


@cache
def _blurred(number: int) -> np.ndarray:
    p = ndimage.gaussian_filter(np.random.default_rng(number).random(SHAPE), 2, mode="wrap")
    return ((p - p.min()) / np.ptp(p)).astype(np.float32)


def cloud(rng: np.random.Generator) -> Given:
    """Blurred noise: one of a few volumes, moved around, as blurring takes longer than deciding."""
    return Given(np.roll(_blurred(rng.integers(6)), rng.integers(0, SHAPE), axis=(0, 1, 2)))


def legal(claimed: list[str]) -> set[frozenset[str]]:
    """Codewords straight from the class table."""
    rows = taxonomy.all_classes()
    return {frozenset()} | {
        frozenset(c for c in claimed if atom in (rows[c].parts or (c,))) for atom in rows if not rows[atom].parts
    }
