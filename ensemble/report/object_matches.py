"""What truth says of a build, object by object and along the threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ensemble.core.box import Slices
from ensemble.core.tiling import slabs
from ensemble.decode.mixing import Probability
from ensemble.methods.overlaps import Overlaps
from ensemble.scoring.semantic import threshold_counts

THRESHOLDS = tuple(k / 40 for k in range(1, 40))


GOOD, NONE = 0.5, 0.1
"""IoU from which an object is found, and below which there is nothing like it."""


@dataclass(frozen=True)
class ObjectMatch:
    """An object, how well the best of the other side's covers it (IoU), and the box around it."""

    label: int
    voxels: int
    iou: float
    box: Slices


def match_objects(truth: np.ndarray, submitted: np.ndarray) -> tuple[list[ObjectMatch], list[ObjectMatch]]:
    """Every object of both sides with its best IoU on the other, worst first; of equals the larger first."""
    overlaps = Overlaps()
    for start, stop in slabs(truth.shape[0]):
        overlaps.add(truth[start:stop], submitted[start:stop])
    of_truth, of_submitted, voxels = overlaps.pairs
    return _judged(truth, of_truth, voxels, overlaps.iou), _judged(submitted, of_submitted, voxels, overlaps.iou)


def _judged(labels: np.ndarray, of_pair: np.ndarray, voxels: np.ndarray, iou: np.ndarray) -> list[ObjectMatch]:
    """The objects of one side; of each pair of labels its own, voxels and IoU."""
    ids, where = np.unique(np.concatenate([np.zeros(1, np.uint64), of_pair]), return_inverse=True)
    sizes, best = np.bincount(where[1:], voxels, len(ids)), np.zeros(len(ids))
    np.maximum.at(best, where[1:], iou)
    numbered = labels if ids[-1] == len(ids) - 1 else np.searchsorted(ids, labels)
    boxes = ndimage.find_objects(numbered.astype(np.int32))
    found = [ObjectMatch(int(ids[i]), int(sizes[i]), float(best[i]), boxes[i - 1]) for i in range(1, len(ids))]
    return sorted(found, key=lambda one: (one.iou, -one.voxels))


def chosen(true: Sequence[ObjectMatch]) -> Iterator[tuple[str, ObjectMatch]]:
    """The two worst of the larger half of the true objects, and the best if it is found."""
    middle = np.median([one.voxels for one in true]) if true else 0
    large = [one for one in sorted(true, key=lambda one: (one.iou, -one.voxels)) if one.voxels >= middle]
    yield from (("worst", one) for one in large[:2])
    if len(large) > 2 and large[-1].iou >= GOOD:
        yield ("best", large[-1])


def false(submitted: Sequence[ObjectMatch]) -> Iterator[tuple[str, ObjectMatch]]:
    """The largest of the submission's objects that is like none of the truth's."""
    nothing = [one for one in submitted if one.iou < NONE]
    if nothing:
        yield ("false", max(nothing, key=lambda one: one.voxels))


def counts_along_thresholds(
    probability: Probability, name: str, truth: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Voxels right, wrong and missed at each of THRESHOLDS, the class standing alone: int64 (threshold, 3)."""
    total = np.zeros((len(THRESHOLDS), 3), np.int64)
    for start, stop in slabs(truth.shape[0]):
        block = (slice(start, stop), slice(0, truth.shape[1]), slice(0, truth.shape[2]))
        p, true = probability.of(name, block), truth[block] > 0
        if mask is not None:
            p, true = p[mask[block]], true[mask[block]]
        total += threshold_counts(p, true, np.float32(THRESHOLDS))
    return total
