"""Places worth a look: the truth's best and worst objects, and where deciding all classes together changed most."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Target
from ensemble.decode import TILE_SHAPE
from ensemble.methods import Stage
from ensemble.report.build_probabilities import BuildProbabilities, ClassProbability
from ensemble.report.facts import FAULT, ReportFacts
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.object_matches import ObjectMatch, largest_false, objects_to_show
from ensemble.report.pictures import PLAIN, changed_voxels, grey, marked, outlines
from ensemble.report.views import box_around, centre_of, em_window, plane_at
from ensemble.storage import open_truth
from ensemble.submission import ArrayPlace, Submission
from ensemble.support import VolumeError

CHANGES = 8
"""Classes whose largest change is shown."""

EDGE = 128
"""Of the pictures of changes, in voxels."""


@dataclass
class ClassObjects:
    """An instance class's objects: the truth's, and the submission's as the server sees them."""

    true: list[ObjectMatch] = field(default_factory=list)
    submitted: list[ObjectMatch] = field(default_factory=list)


@dataclass(frozen=True)
class ObjectCloseUp:
    """An object ("worst", "best" or "false") beside the other side's, in a plane; pictures as data URLs.

    ``em`` is None where it is not at hand.
    """

    kind: str
    place: str
    label: int
    voxels: int
    iou: float
    z: int
    truth: str
    found: str
    em: str | None


@dataclass(frozen=True)
class ChangeCloseUp:
    """The place that joint decoding changed most of a class, in the plane that changed most; pictures as data URLs.

    ``where`` are its voxels in words; ``fills``: what was added includes filled holes. ``em`` is None where it is
    not at hand.
    """

    place: str
    name: str
    voxels: int
    where: str
    z: int
    fills: bool
    threshold: float
    alone: str
    written: str
    changed: str
    em: str | None


def object_closeups(
    build: FinishedBuild, submission: Submission, truth: Path, objects: Mapping[str, ClassObjects]
) -> Iterator[ObjectCloseUp]:
    """By class the worst and the best of the truth's objects and the largest false one, on both sides."""
    for name, sides in objects.items():
        for kind, match in (*objects_to_show(sides.true), *largest_false(sides.submitted)):
            yield _object(build, submission, truth, name, kind, match)


def _object(
    build: FinishedBuild, submission: Submission, truth: Path, name: str, kind: str, match: ObjectMatch
) -> ObjectCloseUp:
    dataset, grid = build.plan.crops[match.crop].dataset, build.grid(match.crop)
    group = f"crop{match.crop}"
    volume = open_truth(truth, Target(match.crop, dataset, grid, (name,)), name)
    if volume is None:
        raise VolumeError(f"{truth}: the truth of {group}/{name} was there, and is not any more")
    read: dict[str, Callable[[Box], NDArray[Any]]] = {
        "truth": volume.read,
        "found": partial(submission.read, group, name),
    }
    own = "found" if kind == "false" else "truth"
    around = read[own](match.box)
    # the submission's parts have other numbers than its ids
    label = _most(around) if kind == "false" else match.label
    z = int((around == label).sum(axis=(1, 2)).argmax())
    edge = min(max(64, *(n + 16 for n in match.box.shape[1:])), 256)
    z += match.box.start[0]
    box = box_around(centre_of(match.box), edge, grid.shape).with_axis(0, z, z + 1)
    sides = {side: of(box)[0] for side, of in read.items()}
    chosen = sides[own] == label
    pictures = {}
    for side, labels in sides.items():
        mark = chosen if side == own else (labels > 0) & (labels == _most(labels[chosen]))
        pictures[side] = marked(labels, mark)
    em = _em(build, match.crop, box)
    return ObjectCloseUp(kind, f"{group}/{name}", label, match.voxels, match.iou, z, **pictures, em=em)


def _most(labels: NDArray[Any]) -> int:
    """The label but 0 that most voxels have; 0 where there is none."""
    ids, voxels = np.unique(labels[labels > 0], return_counts=True)
    return int(ids[voxels.argmax()]) if len(ids) else 0


def change_closeups(
    build: FinishedBuild, facts: ReportFacts, submission: Submission, probabilities: BuildProbabilities
) -> Iterator[ChangeCloseUp]:
    """By class, what changed most first, the place that joint decoding changed most: alone, and as written.

    A class is left out where its probability or its array is not at hand.
    """
    places = ((name, counts.most_changed) for name, counts in facts.consistent.decoding.items())
    shown = ((name, most) for name, most in places if most and _is_there(facts, probabilities, name, most))
    for name, most in islice(shown, CHANGES):
        probability = probabilities.of(most.crop.removeprefix("crop"), name)
        if probability is not None:
            yield _change(build, most, submission, probability)


def _is_there(facts: ReportFacts, probabilities: BuildProbabilities, name: str, most: ArrayPlace) -> bool:
    probability = probabilities.of(most.crop.removeprefix("crop"), name)
    cell = facts.cells.get(most.crop, {}).get(name)
    if probability is None or cell is None or cell.status == FAULT:
        return False
    return all(at < n for at, n in zip(most.at_voxels, probability.plan.target.grid.shape, strict=True))


def _change(
    build: FinishedBuild, most: ArrayPlace, submission: Submission, probability: ClassProbability
) -> ChangeCloseUp:
    target, name, route = probability.plan.target, probability.name, probability.route
    tile = Box.at(most.at_voxels, TILE_SHAPE)
    around = box_around(centre_of(tile), EDGE, target.grid.shape)
    box = around.with_axis(0, tile.start[0], tile.stop[0]).intersect(target.grid.box)
    alone = probability.unfilled(box) > route.threshold
    written = submission.read(target.group, name, box)
    removed, added = alone & (written == 0), ~alone & (written > 0)
    inside = tile.intersect(target.grid.box)
    z = int(np.count_nonzero((removed | added)[inside.relative_to(box).slices], axis=(1, 2)).argmax())
    plane = plane_at(box, z)
    return ChangeCloseUp(
        place=f"{target.group}/{name}",
        name=name,
        voxels=most.voxels,
        where=", ".join(f"{axis} {a}–{b}" for axis, a, b in zip("zyx", inside.start, inside.stop, strict=True)),
        z=plane.start[0],
        fills=bool(route.of_stage(Stage.FILL)),
        threshold=route.threshold,
        alone=outlines(alone[z].astype(np.uint8), PLAIN),
        written=outlines(written[z], PLAIN),
        changed=changed_voxels(removed[z], added[z]),
        em=_em(build, target.crop, plane),
    )


def _em(build: FinishedBuild, crop: str, plane: Box) -> str | None:
    """The EM under a plane along z, where it is at hand."""
    levels = build.em(build.plan.crops[crop].dataset)
    values = None if levels is None else em_window(levels, build.grid(crop), plane)
    return None if values is None else grey(values[0])
