"""The truth that tuning chooses by, cut into folds, and what a route is worth on each of them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import CHUNK, Box, BoxArray, MemoryArray, VoxelsZYX, is_instance
from ensemble.decode import CropAssembly, MakeArray, Probability, assemble_group
from ensemble.engine import Here, done
from ensemble.plan import Budget, CropPlan, Expression, Route, describe_route
from ensemble.predict import Fields
from ensemble.scoring import Tally, instance_class_scores, semantic_class_scores, tally_array, threshold_counts
from ensemble.storage import open_truth, scratch_array, whole_truth
from ensemble.support import Journal, VolumeError, digest

FOLDS = 2
GAP_VOXELS = 16
"""Between the halves of a crop, so that what chooses does not touch what judges; less in a crop that is short."""
WHOLE_CROPS = 4
"""From so many crops on, folds are whole crops."""
_HELD_BYTES_PER_VOXEL = 24

Labels = tuple[NDArray[Any], NDArray[np.bool_] | None]
"""Truth, and the mask of what counts."""

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
    box: Box


def blocks_of(shapes: Mapping[str, VoxelsZYX]) -> dict[str, list[Block]]:
    """By crop, its blocks: two halves along the longest axis with a gap, or of many crops every other one whole."""
    blocks = {}
    for index, (crop, shape) in enumerate(shapes.items()):
        whole = Box.of_shape(shape)
        if len(shapes) >= WHOLE_CROPS:
            blocks[crop] = [Block(index % FOLDS, whole)]
            continue
        axis = int(np.argmax(shape))
        length, gap = shape[axis], min(GAP_VOXELS, shape[axis] // 8)
        halves = ((0, (length - gap) // 2), ((length + gap + 1) // 2, length))
        blocks[crop] = [Block(fold, whole.with_axis(axis, *half)) for fold, half in enumerate(halves)]
    return blocks


def score_of(name: str, tallies: Sequence[Tally]) -> float:
    """The class's official score on folds together."""
    total = sum(tallies, Tally())
    if is_instance(name):
        return instance_class_scores(total)["combined_score"]
    return semantic_class_scores(total)["iou"]


@dataclass
class FoldEvaluator:
    """Crops with their truth and their stored probabilities; what was evaluated once is remembered.

    Made by ``FoldEvaluator.of``. ``plans`` are the recipe's own, by crop; ``fields`` the probabilities of (class,
    source) in a crop; ``identity`` is a digest of all that decides them.
    """

    plans: Mapping[str, CropPlan]
    fields: Callable[[str], Fields]
    truth: Path
    identity: str
    work: Path
    budget: Budget
    blocks: dict[str, list[Block]]
    _remembered: Journal
    _last_truth: tuple[tuple[str, str], Labels] | None = None

    @classmethod
    def of(
        cls,
        plans: Mapping[str, CropPlan],
        fields: Callable[[str], Fields],
        truth: Path,
        identity: str,
        work: Path,
        budget: Budget,
    ) -> "FoldEvaluator":
        """Goes on from what was remembered in the folder ``work``."""
        blocks = blocks_of({crop: plan.target.grid.shape for crop, plan in plans.items()})
        work.mkdir(parents=True, exist_ok=True)
        return cls(plans, fields, truth, identity, work, budget, blocks, Journal.open(work / "evaluated"))

    # -- remembering

    def _once(self, what: Any, compute: Callable[[], Sequence[Sequence[float]]]) -> list[list[float]]:
        key = digest([self.identity, what])
        if not self._remembered.noted(key):
            self._remembered.note(key, compute())
        rows: list[list[float]] = self._remembered.noted(key)[0]
        return rows

    # -- truth

    def truth_of(self, crop: str, name: str) -> Labels:
        """The labels of a class, 0 where its mask says that nothing counts, and the mask; the last are held.

        Raises VolumeError where there are none.
        """
        if self._last_truth is None or self._last_truth[0] != (crop, name):
            labels = whole_truth(self.truth, self.plans[crop].target, name)
            if labels is None:
                raise VolumeError(f"{self.truth}: crop{crop}/{name} is not there any more")
            self._last_truth = ((crop, name), labels)
        return self._last_truth[1]

    def with_truth(self, name: str, crops: Sequence[str]) -> tuple[str, ...]:
        """Those of the crops that have truth for a class."""
        return tuple(
            crop
            for crop in crops
            if name in self.plans[crop].target.classes and open_truth(self.truth, self.plans[crop].target, name)
        )

    # -- one class alone

    def alone(self, unit: TuningUnit, route: Route) -> Tallies:
        """What a route is worth in each fold, the class standing alone."""
        rows = self._once(["alone", unit.name, unit.crops, describe_route(route)], lambda: self._alone(unit, route))
        return [Tally(int(tp), int(fp), int(fn), s, int(n)) for tp, fp, fn, s, n in rows]

    def _alone(self, unit: TuningUnit, route: Route) -> list[list[float]]:
        tallies = [Tally()] * FOLDS
        for crop in unit.crops:
            plan = self.plans[crop]
            alone = replace(plan, routes={**plan.routes, unit.name: route}, claimed=(unit.name,))
            arrays = self._assembled(alone, (unit.name,), joint=False)
            self._count(crop, unit.name, arrays[unit.name], tallies)
        return [_row(tally) for tally in tallies]

    def curve(
        self, unit: TuningUnit, source: Expression, route: Route, thresholds: Sequence[float]
    ) -> NDArray[np.int64]:
        """For each fold and threshold the voxels right, wrong and missed: int64 (fold, threshold, 3); one pass.

        Exactly what ``alone`` counts for the route with that source and threshold.
        """
        plain = replace(route, source=source)
        what = [
            "curve",
            unit.name,
            unit.crops,
            describe_route(replace(plain, threshold=0.5)),
            list(thresholds),
        ]
        rows = self._once(
            what, lambda: self._curve(unit, plain, np.asarray(thresholds, np.float32)).reshape(-1, 3).tolist()
        )
        return np.array(rows, np.int64).reshape(FOLDS, len(thresholds), 3)

    def _curve(self, unit: TuningUnit, route: Route, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        counts = np.zeros((FOLDS, len(thresholds), 3), np.int64)
        for crop in unit.crops:
            plan, (truth, mask) = self.plans[crop], self.truth_of(crop, unit.name)
            p = Probability(replace(plan, routes={**plan.routes, unit.name: route}), self.fields(crop))
            for block in self.blocks[crop]:
                for box in block.box.tiles((CHUNK[0], *block.box.shape[1:])):
                    values, true = p.of(unit.name, box), truth[box.slices] > 0
                    if mask is not None:
                        values, true = values[mask[box.slices]], true[mask[box.slices]]
                    counts[block.fold] += threshold_counts(values, true, thresholds)
        return counts

    # -- all classes together

    def joint(self, routes: Mapping[tuple[str, str], Route], *, together: bool) -> dict[str, Tallies]:
        """By class what these routes, (crop, class) -> route, are worth in each fold, decided together or alone."""
        by_class: dict[str, Tallies] = {}
        for crop, plan in self.plans.items():
            for name, tallies in self._joint(crop, plan, routes, together=together).items():
                sums = by_class.setdefault(name, [Tally()] * FOLDS)
                by_class[name] = [a + b for a, b in zip(sums, tallies, strict=True)]
        return by_class

    def _joint(
        self, crop: str, plan: CropPlan, routes: Mapping[tuple[str, str], Route], *, together: bool
    ) -> dict[str, Tallies]:
        mine = {name: routes.get((crop, name), route) for name, route in plan.routes.items()}
        routed = replace(plan, routes=mine)
        names = [n for n in plan.claimed if self.with_truth(n, [crop])]
        groups = [plan.claimed] if together else [(name,) for name in names]
        what = ["joint", crop, together, [(n, describe_route(r)) for n, r in mine.items()]]

        def compute() -> list[list[float]]:
            rows = []
            for group in groups:
                arrays = self._assembled(routed, group, joint=together)
                for name in (n for n in names if n in group):
                    tallies = [Tally()] * FOLDS
                    self._count(crop, name, arrays[name], tallies)
                    rows += [_row(tally) for tally in tallies]
            return rows

        rows = [Tally(int(tp), int(fp), int(fn), s, int(n)) for tp, fp, fn, s, n in self._once(what, compute)]
        return {name: rows[i * FOLDS : (i + 1) * FOLDS] for i, name in enumerate(names)}

    # -- common

    def _assembled(self, plan: CropPlan, group: Sequence[str], *, joint: bool) -> dict[str, BoxArray]:
        """The arrays that the builder would write, in memory where they fit."""
        target = plan.target
        folder = self.work / "scratch" / target.crop
        shutil.rmtree(folder, ignore_errors=True)
        in_memory = _HELD_BYTES_PER_VOXEL * target.grid.size <= self.budget.memory_bytes

        def maker(folder: Path) -> tuple[MakeArray, dict[str, BoxArray]]:
            made: dict[str, BoxArray] = {}

            def make(name: str, dtype: np.dtype[Any]) -> BoxArray:
                if name not in made:
                    in_files = partial(scratch_array, folder, target, name, dtype)
                    made[name] = MemoryArray.zeros(target.grid.shape, dtype) if in_memory else in_files()
                return made[name]

            return make, made

        (scratch, _), (final, written) = maker(folder / "scratch"), maker(folder / "written")
        probability = Probability(plan, self.fields(target.crop))
        crop = CropAssembly(plan, probability, scratch, final, self.budget)
        with Here(self.budget.deciding_workers) as engine:
            list(done(engine, [assemble_group(crop, group, joint=joint)]))
        return written

    def _count(self, crop: str, name: str, array: BoxArray, tallies: list[Tally]) -> None:
        truth, mask = self.truth_of(crop, name)
        size = self.plans[crop].target.grid.voxel_size_nm
        for block in self.blocks[crop]:
            prediction = np.asarray(array[block.box])
            if mask is not None:
                prediction = np.where(mask[block.box.slices], prediction, np.zeros((), prediction.dtype))
            try:
                counted = tally_array(name, truth[block.box.slices], prediction, size, threads=self.budget.workers)
            except ValueError as error:
                raise VolumeError(f"{self.truth}: crop{crop}/{name}: {error}") from error
            tallies[block.fold] = tallies[block.fold] + replace(counted, partition=None)


def _row(tally: Tally) -> list[float]:
    return [tally.tp, tally.fp, tally.fn, tally.distance_scores, tally.distances]
