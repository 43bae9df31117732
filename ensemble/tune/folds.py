"""The truth that tuning chooses by, cut into folds, and what a route is worth on each of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.box import Slices
from ensemble.core.tiling import slabs
from ensemble.decode.assembling import CropAssembly, assemble_group
from ensemble.decode.mixing import Probability
from ensemble.plan import describe
from ensemble.plan.budget import Budget
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import Expression, Route
from ensemble.scoring import pooling
from ensemble.scoring.evaluation import tally
from ensemble.scoring.pooling import Tally
from ensemble.scoring.semantic import threshold_counts
from ensemble.storage.chunked_array import scratch_array
from ensemble.storage.truth import open_truth, whole_truth
from ensemble.support.digests import digest
from ensemble.support.errors import VolumeError
from ensemble.support.journal import Journal

FOLDS = 2
GAP_VOXELS = 16
"""Between the halves of a crop, so that what chooses does not touch what judges; less in a crop that is short."""
WHOLE_CROPS = 4
"""From so many crops on, folds are whole crops."""
_HELD_BYTES_PER_VOXEL = 24

Tallies = list[Tally]
"""By fold, what was right and wrong there; they add up."""


@dataclass(frozen=True)
class TuningUnit:
    """A class in the crops where one entry of the recipe routes it: entry ``when`` of its list, or its main one."""

    name: str
    when: int | None
    crops: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.name if self.when is None else f"{self.name} (when {self.when + 1})"


@dataclass(frozen=True)
class Block:
    """A part of a crop that belongs to a fold."""

    fold: int
    box: Slices


def blocks_of(shapes: Mapping[str, tuple[int, int, int]]) -> dict[str, list[Block]]:
    """By crop, its blocks: two halves along the longest axis with a gap, or of many crops every other one whole."""
    found = {}
    for index, (crop, shape) in enumerate(shapes.items()):
        whole = tuple(slice(0, n) for n in shape)
        if len(shapes) >= WHOLE_CROPS:
            found[crop] = [Block(index % FOLDS, whole)]
            continue
        axis = int(np.argmax(shape))
        length, gap = shape[axis], min(GAP_VOXELS, shape[axis] // 8)
        ends = (slice(0, (length - gap) // 2), slice((length + gap + 1) // 2, length))
        found[crop] = [Block(f, (*whole[:axis], part, *whole[axis + 1 :])) for f, part in enumerate(ends)]
    return found


def score_of(name: str, tallies: Sequence[Tally]) -> float:
    """The class's official score on folds together."""
    total = sum(tallies, Tally())
    if taxonomy.is_instance(name):
        return pooling.instance_class(total)["combined_score"]
    return pooling.semantic_class(total)["iou"]


@dataclass
class FoldEvaluator:
    """Crops with their truth and their stored probabilities; what was evaluated once is remembered.

    ``plans`` are the recipe's own, by crop; ``fields`` the probabilities of (class, source) in a crop; ``known``
    is a digest of all that decides them.
    """

    plans: Mapping[str, CropPlan]
    fields: Callable[[str], dict[tuple[str, str], Any]]
    truth: Path
    known: str
    work: Path
    budget: Budget
    blocks: dict[str, list[Block]] = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = blocks_of({crop: plan.target.grid.shape for crop, plan in self.plans.items()})
        self.work.mkdir(parents=True, exist_ok=True)
        self._remembered = Journal.open(self.work / "evaluated")
        self._held: Any = None

    # -- remembering

    def _once(self, what: Any, compute: Callable[[], list[list[float]]]) -> list[list[float]]:
        key = digest([self.known, what])
        if not self._remembered.noted(key):
            self._remembered.note(key, compute())
        return self._remembered.noted(key)[0]

    # -- truth

    def truth_of(self, crop: str, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The labels of a class, 0 where its mask says that nothing counts, and the mask; the last are held."""
        if self._held is None or self._held[0] != (crop, name):
            self._held = ((crop, name), whole_truth(self.truth, self.plans[crop].target, name))
        return self._held[1]

    def with_truth(self, name: str, crops: Sequence[str]) -> tuple[str, ...]:
        """Those of the crops that have truth for a class."""
        found = []
        for crop in crops:
            if name in self.plans[crop].target.classes and open_truth(self.truth, self.plans[crop].target, name):
                found.append(crop)
        return tuple(found)

    # -- one class alone

    def alone(self, unit: TuningUnit, route: Route) -> Tallies:
        """What a route is worth in each fold, the class standing alone."""
        rows = self._once(
            ["alone", unit.name, unit.crops, describe.describe_route(route)], lambda: self._alone(unit, route)
        )
        return [Tally(int(tp), int(fp), int(fn), s, int(n)) for tp, fp, fn, s, n in rows]

    def _alone(self, unit: TuningUnit, route: Route) -> list[list[float]]:
        found = [Tally()] * FOLDS
        for crop in unit.crops:
            plan = self.plans[crop]
            alone = replace(plan, routes={**plan.routes, unit.name: route}, claimed=(unit.name,))
            arrays = self._assembled(alone, (unit.name,), joint=False)
            self._count(crop, unit.name, arrays[unit.name], found)
        return [_row(one) for one in found]

    def curve(self, unit: TuningUnit, source: Expression, route: Route, thresholds: Sequence[float]) -> np.ndarray:
        """For each fold and threshold the voxels right, wrong and missed: int64 (fold, threshold, 3); one pass.

        Exactly what ``alone`` counts for the route with that source and threshold.
        """
        plain = replace(route, source=source)
        what = [
            "curve",
            unit.name,
            unit.crops,
            describe.describe_route(replace(plain, threshold=0.5)),
            list(thresholds),
        ]
        rows = self._once(what, lambda: self._curve(unit, plain, np.float32(thresholds)).reshape(-1, 3).tolist())
        return np.array(rows, np.int64).reshape(FOLDS, len(thresholds), 3)

    def _curve(self, unit: TuningUnit, route: Route, thresholds: np.ndarray) -> np.ndarray:
        found = np.zeros((FOLDS, len(thresholds), 3), np.int64)
        for crop in unit.crops:
            plan, (truth, mask) = self.plans[crop], self.truth_of(crop, unit.name)
            one = replace(plan, routes={**plan.routes, unit.name: route})
            p = Probability(one, self.fields(crop))
            for block in self.blocks[crop]:
                for box in _thin(block.box):
                    values, true = p.of(unit.name, box), truth[box] > 0
                    if mask is not None:
                        values, true = values[mask[box]], true[mask[box]]
                    found[block.fold] += threshold_counts(values, true, thresholds)
        return found

    # -- all classes together

    def joint(self, routes: Mapping[tuple[str, str], Route], *, together: bool) -> dict[str, Tallies]:
        """By class what these routes, (crop, class) -> route, are worth in each fold, decided together or alone."""
        found: dict[str, Tallies] = {}
        for crop, plan in self.plans.items():
            for name, tallies in self._joint(crop, plan, routes, together=together).items():
                sums = found.setdefault(name, [Tally()] * FOLDS)
                found[name] = [a + b for a, b in zip(sums, tallies, strict=True)]
        return found

    def _joint(
        self, crop: str, plan: CropPlan, routes: Mapping[tuple[str, str], Route], *, together: bool
    ) -> dict[str, Tallies]:
        mine = {name: routes.get((crop, name), route) for name, route in plan.routes.items()}
        told = replace(plan, routes=mine)
        names = [n for n in plan.claimed if self.with_truth(n, [crop])]
        groups = [plan.claimed] if together else [(name,) for name in names]
        what = ["joint", crop, together, [(n, describe.describe_route(r)) for n, r in mine.items()]]

        def compute() -> list[list[float]]:
            rows = []
            for group in groups:
                arrays = self._assembled(told, group, joint=together)
                for name in (n for n in names if n in group):
                    found = [Tally()] * FOLDS
                    self._count(crop, name, arrays[name], found)
                    rows += [_row(one) for one in found]
            return rows

        rows = [Tally(int(tp), int(fp), int(fn), s, int(n)) for tp, fp, fn, s, n in self._once(what, compute)]
        return {name: rows[i * FOLDS : (i + 1) * FOLDS] for i, name in enumerate(names)}

    # -- common

    def _assembled(self, plan: CropPlan, group: Sequence[str], *, joint: bool) -> dict[str, Any]:
        """The arrays that the builder would write, in memory where they fit."""
        written: dict[str, Any] = {}
        target = plan.target
        in_memory = _HELD_BYTES_PER_VOXEL * target.grid.size <= self.budget.memory_bytes

        def make(name: str, dtype: np.dtype, *, keep: bool = False) -> Any:
            if in_memory:
                return np.zeros(target.grid.shape, dtype)
            return scratch_array(self.work / "scratch" / target.crop, target, name, dtype, keep=keep)

        def create(name: str, dtype: np.dtype, *, keep: bool = False) -> Any:
            if not (keep and name in written):
                written[name] = make(f"written {name}", dtype)
            return written[name]

        probability = Probability(plan, self.fields(target.crop))
        assemble_group(CropAssembly(plan, probability, make, create, self.budget), group, joint=joint)
        return written

    def _count(self, crop: str, name: str, array: Any, found: list[Tally]) -> None:
        truth, mask = self.truth_of(crop, name)
        size = self.plans[crop].target.grid.voxel_size_nm
        for block in self.blocks[crop]:
            prediction = np.asarray(array[block.box])
            if mask is not None:
                prediction = np.where(mask[block.box], prediction, np.zeros((), prediction.dtype))
            try:
                one = tally(name, truth[block.box], prediction, size, threads=self.budget.workers)
            except ValueError as error:
                raise VolumeError(f"{self.truth}: crop{crop}/{name}: {error}") from error
            found[block.fold] = found[block.fold] + replace(one, partition=None)


def _row(one: Tally) -> list[float]:
    return [one.tp, one.fp, one.fn, one.distance_scores, one.distances]


def _thin(box: Slices) -> Iterator[Slices]:
    for start, stop in slabs(box[0].stop - box[0].start):
        yield (slice(box[0].start + start, box[0].start + stop), *box[1:])
