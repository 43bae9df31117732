"""A difference as one page, with pictures of the largest changes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.core import Box
from ensemble.report.array_changes import ArrayChange, Difference
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.pictures import changed_voxels, grey, outlines
from ensemble.report.templating import render_template
from ensemble.report.views import box_around, centre_of, em_window, plane_at
from ensemble.submission import StoredArray, Submission
from ensemble.support import EnsembleError, write_text

PICTURED = 12
"""Arrays whose difference is shown: those that changed most."""
_EDGE = 192


@dataclass(frozen=True)
class PicturedChange:
    """An array in A and B and what is in one only, in the plane along z that changed most; pictures as data URLs."""

    change: ArrayChange
    z: int
    a: str
    b: str
    changed: str
    em: str | None


def write_difference(difference: Difference, a: Submission, b: Submission, page: Path) -> None:
    """Write the page; ``a`` and ``b`` are the submissions that differ."""
    largest = sorted(difference.changes, key=lambda change: (-change.changed, -change.moved))[:PICTURED]
    shown = [
        _pictured(difference, change, change.busiest, a, b)
        for change in largest
        if change.busiest is not None and change.any
    ]
    write_text(page, render_template("diff.html.j2", difference=difference, shown=shown))


def _pictured(
    difference: Difference, change: ArrayChange, busiest: Box, a: Submission, b: Submission
) -> PicturedChange:
    crop, name = change.place.split("/")
    array = a.array(crop, name)
    box = box_around(centre_of(busiest), _EDGE, array.shape_zyx)
    left, right = array.read(box), b.read(crop, name, box)
    ids, where = np.unique(right, return_inverse=True)
    as_in_a = np.array([change.matches.get(n, n) for n in ids.tolist()])[where].reshape(right.shape)
    differs = ((left > 0) != (right > 0)) if change.changed else left != as_in_a
    at = int(differs.sum(axis=(1, 2)).argmax())
    plane = plane_at(box, at)
    in_a, in_b = left[at] > 0, right[at] > 0
    return PicturedChange(
        change,
        plane.start[0],
        outlines(left[at]),
        outlines(as_in_a[at]),
        changed_voxels(in_a & ~in_b, in_b & ~in_a),
        _em(difference, crop.removeprefix("crop"), array, plane),
    )


def _em(difference: Difference, crop: str, array: StoredArray, plane: Box) -> str | None:
    """The EM under a plane, from where either build had it."""
    for path in (difference.a, difference.b):
        try:
            build = FinishedBuild.of(path)
        except EnsembleError:
            continue
        levels = build.em(build.plan.crops[crop].dataset) if crop in build.plan.crops else None
        values = None if levels is None else em_window(levels, array.grid, plane)
        if values is not None:
            return grey(values[0])
    return None
