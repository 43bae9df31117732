"""What truth says of a build, object by object and along the threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ensemble.grid import Slices
from ensemble.mixing import Probability
from ensemble.scoring import curve
from ensemble.tiling import slabs

THRESHOLDS = tuple(k / 40 for k in range(1, 40))


GOOD, NONE = 0.5, 0.1
"""IoU from which an object is found, and below which there is nothing like it."""


@dataclass(frozen=True)
class Judged:
    """An object, how well the best of the other side's covers it (IoU), and the box around it."""

    label: int
    voxels: int
    iou: float
    box: Slices


def objects(mine: np.ndarray, other: np.ndarray) -> list[Judged]:
    """Every object of one side with its best IoU on the other, worst first; of equals the larger first."""
    ids, compact = np.unique(mine, return_inverse=True)
    compact = compact.reshape(mine.shape)
    labels, sizes = np.unique(other, return_counts=True)
    voxels = np.bincount(compact.ravel(), minlength=len(ids))
    best = np.zeros(len(ids))
    inside = (mine > 0) & (other > 0)
    pairs = compact[inside] * len(labels) + np.searchsorted(labels, other[inside])
    for pair, common in zip(*np.unique(pairs, return_counts=True), strict=True):
        index, label = divmod(int(pair), len(labels))
        best[index] = max(best[index], common / (voxels[index] + sizes[label] - common))
    boxes = ndimage.find_objects(compact if ids[0] == 0 else compact + 1)
    first = 0 if ids[0] else 1
    found = [Judged(int(ids[i]), int(voxels[i]), float(best[i]), boxes[i - first]) for i in range(first, len(ids))]
    return sorted(found, key=lambda one: (one.iou, -one.voxels))


def chosen(true: Sequence[Judged]) -> Iterator[tuple[str, Judged]]:
    """The two worst of the larger half of the true objects, and the best if it is found."""
    middle = np.median([one.voxels for one in true]) if true else 0
    large = [one for one in sorted(true, key=lambda one: (one.iou, -one.voxels)) if one.voxels >= middle]
    yield from (("worst", one) for one in large[:2])
    if len(large) > 2 and large[-1].iou >= GOOD:
        yield ("best", large[-1])


def false(submitted: Sequence[Judged]) -> Iterator[tuple[str, Judged]]:
    """The largest of the submission's objects that is like none of the truth's."""
    nothing = [one for one in submitted if one.iou < NONE]
    if nothing:
        yield ("false", max(nothing, key=lambda one: one.voxels))


def threshold_counts(
    probability: Probability, name: str, truth: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Voxels right, wrong and missed at each of THRESHOLDS, the class standing alone: int64 (threshold, 3)."""
    total = np.zeros((len(THRESHOLDS), 3), np.int64)
    for start, stop in slabs(truth.shape[0]):
        block = (slice(start, stop), slice(0, truth.shape[1]), slice(0, truth.shape[2]))
        p, true = probability.of(name, block), truth[block] > 0
        if mask is not None:
            p, true = p[mask[block]], true[mask[block]]
        total += curve.counts(p, true, np.float32(THRESHOLDS))
    return total
