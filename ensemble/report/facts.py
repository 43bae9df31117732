"""What a report says: numbers that the build, its check and perhaps its scores already hold, put in order."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ensemble.core import NmZYX, Target, VoxelsZYX
from ensemble.report.class_facts import ClassFacts, facts_of_class
from ensemble.report.class_scores import ScoreRow, score_rows
from ensemble.report.finished_build import FinishedBuild
from ensemble.submission import NOTABLE_CHANGE, ArrayContents, ArrayPlace, BrokenRelation
from ensemble.support import StageCost, counted

WRITTEN, EMPTY, LIKELY, UNCLAIMED, FAULT = "written", "empty", "likely", "unclaimed", "fault"
STATUSES = {
    WRITTEN: "holds voxels",
    EMPTY: "empty",
    LIKELY: "empty, though its probability exceeds one half somewhere",
    UNCLAIMED: "zeros on purpose: the recipe lists it as empty",
    FAULT: "the check found a fault",
}


@dataclass(frozen=True)
class CropFacts:
    """Where a crop is from."""

    dataset: str
    shape: VoxelsZYX
    voxel_size_nm: NmZYX


@dataclass(frozen=True)
class CellFacts:
    """One array: a status of ``STATUSES``, what the check counted in it, and ``why`` it is a fault.

    ``fallback``: the recipe has no entry of its own for the class; ``share`` of the crop's voxels;
    ``highest_probability`` of an empty one.
    """

    status: str
    fallback: bool
    highest_probability: float | None
    contents: ArrayContents | None
    share: float | None
    why: str

    def as_plain(self, name: str) -> dict[str, Any]:
        """As report.json has it, ``name`` being the class."""
        return {
            "status": self.status,
            "fallback": self.fallback,
            "highest_probability": self.highest_probability,
            **({} if self.contents is None else self.contents.as_plain(name)),
            "share": self.share,
            "why": self.why,
        }


@dataclass(frozen=True)
class DecodingFacts:
    """What deciding all classes together changed of one: voxels, their share of those it has alone, and where most."""

    alone: int
    removed: int
    added: int
    most_changed: ArrayPlace | None
    removed_share: float
    added_share: float
    notable: bool


@dataclass(frozen=True)
class ConsistencyFacts:
    """Voxels that contradict themselves, by crop and by what is broken, and what mending them changed by class."""

    violations: Mapping[str, int]
    violations_before: Mapping[str, int]
    relations: Mapping[str, BrokenRelation]
    decoding: Mapping[str, DecodingFacts]


@dataclass(frozen=True)
class CostFacts:
    """What the build took, and what its plan had foreseen."""

    stages: tuple[StageCost, ...]
    planned_passes: int
    forward_passes: int | None
    predictions_kept: int | None
    predictions: int | None
    groups_kept: int | None
    groups: int | None
    voxels: int
    planned_peak_bytes: int


@dataclass(frozen=True)
class ReportFacts:
    """Everything the page shows but pictures. Crops by group name ("crop557"); ``cells``: crop -> class -> array.

    ``networks``: source -> how its network ran. ``without``: what could not be shown, and why.
    """

    name: str
    consistency: str
    verdict: str
    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    crops: Mapping[str, CropFacts]
    classes: Mapping[str, ClassFacts]
    cells: Mapping[str, Mapping[str, CellFacts]]
    consistent: ConsistencyFacts
    costs: CostFacts
    scores: Mapping[str, Any] | None
    score_rows: tuple[ScoreRow, ...]
    networks: Mapping[str, str]
    without: tuple[str, ...]

    def with_truth_objects(self, counts: Mapping[str, int]) -> "ReportFacts":
        """The same with the number of the truth's objects of some classes."""
        changed = {name: replace(self.classes[name], truth_objects=count) for name, count in counts.items()}
        return replace(self, classes={**self.classes, **changed})

    def as_plain(self) -> dict[str, Any]:
        """As report.json has it."""
        cells = {crop: {name: cell.as_plain(name) for name, cell in row.items()} for crop, row in self.cells.items()}
        return {**asdict(self), "cells": cells}


def gather_facts(
    build: FinishedBuild, *, likely: Mapping[str, float], registry_address: str, without: Sequence[str] = ()
) -> ReportFacts:
    """The facts of a build; ``likely``: the highest probability of arrays that are empty."""
    cells = {target.group: _cells(build, target, likely) for target in build.targets}
    contents = {
        crop: {name: cell.contents for name, cell in row.items() if cell.contents is not None}
        for crop, row in cells.items()
    }
    names = list(dict.fromkeys(name for target in build.targets for name in target.classes))
    return ReportFacts(
        name=build.plan.recipe,
        consistency=build.plan.consistency,
        verdict=_verdict(build, cells),
        faults=build.check.faults,
        warnings=(*build.plan.warnings, *build.check.warnings),
        crops={t.group: CropFacts(t.dataset, t.grid.shape, t.grid.voxel_size_nm) for t in build.targets},
        classes={name: facts_of_class(build, name, contents, registry_address) for name in names},
        cells=cells,
        consistent=ConsistencyFacts(
            build.check.violations, build.check.violations_before, build.check.relations, _decoding(build)
        ),
        costs=_costs(build),
        scores=build.scores,
        score_rows=() if build.scores is None else score_rows(build.scores),
        networks=build.plan.networks,
        without=tuple(without),
    )


def _cells(build: FinishedBuild, target: Target, likely: Mapping[str, float]) -> dict[str, CellFacts]:
    cells = {}
    for name, made in build.plan.crops[target.crop].classes.items():
        contents = build.check.arrays.get(target.group, {}).get(name)
        place = f"{target.group}/{name}"
        faults = [text for text in build.check.faults if text.startswith(f"{place}:")]
        status = WRITTEN
        if contents is None or faults:
            status = FAULT
        elif not contents.nonzero_voxels:
            status = UNCLAIMED if not made.claimed else LIKELY if likely.get(place, 0) > 0.5 else EMPTY
        cells[name] = CellFacts(
            status=status,
            fallback=made.fallback,
            highest_probability=likely.get(place),
            contents=contents,
            share=None if contents is None else contents.nonzero_voxels / target.grid.size,
            why=faults[0] if faults else "",
        )
    return cells


def _verdict(build: FinishedBuild, cells: Mapping[str, Mapping[str, CellFacts]]) -> str:
    """One line in words."""
    arrays = [cell for row in cells.values() for cell in row.values()]
    cells_of = {status: sum(cell.status == status for cell in arrays) for status in STATUSES}
    faults, warnings = len(build.check.faults), len(build.plan.warnings) + len(build.check.warnings)
    legal = "complete and legal: ready to upload"
    if not build.check.is_official:
        legal = "complete and legal for a manifest that is not the challenge's"
    if build.plan.left_out:
        legal = f"partial: not for upload, {counted(build.plan.left_out, 'array')} of the manifest left out"
    elif cells_of[LIKELY]:
        legal = f"complete and legal, but {counted(cells_of[LIKELY], 'looks', 'look')} wrongly empty"
    if faults:
        legal = f"NOT ready: {counted(faults, 'fault')} to mend"
    return (
        f"{counted(len(arrays), 'array')} of {counted(len(cells), 'crop')}, {legal};"
        f" {counted(cells_of[WRITTEN], 'holds', 'hold')} voxels,"
        f" {counted(cells_of[EMPTY] + cells_of[LIKELY], 'is', 'are')} empty,"
        f" {counted(cells_of[UNCLAIMED], 'is', 'are')} zeros on purpose, {counted(warnings, 'warning')}"
    )


def _decoding(build: FinishedBuild) -> dict[str, DecodingFacts]:
    """By class, what changed most first; without those that did not change."""
    rows = {}
    for name, counts in build.check.decoding.items():
        if counts.removed or counts.added:
            alone = counts.alone or 1
            removed_share, added_share = counts.removed / alone, counts.added / alone
            rows[name] = DecodingFacts(
                counts.alone,
                counts.removed,
                counts.added,
                counts.most_changed,
                removed_share,
                added_share,
                notable=max(removed_share, added_share) > NOTABLE_CHANGE,
            )
    return dict(sorted(rows.items(), key=lambda row: -(row[1].removed + row[1].added)))


def _costs(build: FinishedBuild) -> CostFacts:
    planned, spent = build.plan.cost, build.costs
    return CostFacts(
        stages=spent.stages,
        planned_passes=planned.forward_passes,
        forward_passes=spent.forward_passes,
        predictions_kept=spent.predictions_kept,
        predictions=spent.predictions,
        groups_kept=spent.groups_kept,
        groups=spent.groups,
        voxels=planned.voxels,
        planned_peak_bytes=planned.peak_memory_bytes,
    )
