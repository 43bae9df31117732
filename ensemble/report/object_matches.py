"""What truth says of a build, object by object and along the threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ensemble.core import Box, slabs
from ensemble.decode import Probability
from ensemble.methods import Overlaps
from ensemble.scoring import box_of, threshold_counts

THRESHOLDS = tuple(k / 40 for k in range(1, 40))

GOOD, NONE = 0.5, 0.1
"""IoU from which an object is found, and below which there is nothing like it."""


@dataclass(frozen=True)
class ObjectMatch:
    """An object of a crop, how well the best of the other side's covers it (IoU), and the box around it."""

    label: int
    voxels: int
    iou: float
    box: Box
    crop: str = ""


def match_objects(
    truth: NDArray[Any], submitted: NDArray[Any], crop: str = ""
) -> tuple[list[ObjectMatch], list[ObjectMatch]]:
    """Every object of both sides with its best IoU on the other, worst first; of equals the larger first."""
    overlaps = Overlaps()
    for slab in slabs(truth.shape):
        overlaps.add(truth[slab.slices], submitted[slab.slices])
    of_truth, of_submitted, voxels = overlaps.pairs
    return (
        _matched(truth, of_truth, voxels, overlaps.iou, crop),
        _matched(submitted, of_submitted, voxels, overlaps.iou, crop),
    )


def _matched(
    labels: NDArray[Any],
    of_pair: NDArray[np.uint64],
    voxels: NDArray[np.int64],
    iou: NDArray[np.float64],
    crop: str,
) -> list[ObjectMatch]:
    """The objects of one side; of each pair of labels its own, voxels and IoU."""
    ids, where = np.unique(np.concatenate([np.zeros(1, np.uint64), of_pair]), return_inverse=True)
    sizes, best = np.bincount(where[1:], voxels, len(ids)), np.zeros(len(ids))
    np.maximum.at(best, where[1:], iou)
    numbered = labels if ids[-1] == len(ids) - 1 else np.searchsorted(ids, labels)
    matches = [
        ObjectMatch(int(ids[number]), int(sizes[number]), float(best[number]), box_of(index), crop)
        for number, index in enumerate(ndimage.find_objects(numbered.astype(np.int32)), start=1)
        if index is not None
    ]
    return sorted(matches, key=lambda match: (match.iou, -match.voxels))


def objects_to_show(true: Sequence[ObjectMatch]) -> Iterator[tuple[str, ObjectMatch]]:
    """The two worst of the larger half of the true objects, and the best if it is found."""
    middle = np.median([match.voxels for match in true]) if true else 0
    by_iou = sorted(true, key=lambda match: (match.iou, -match.voxels))
    large = [match for match in by_iou if match.voxels >= middle]
    yield from (("worst", match) for match in large[:2])
    if len(large) > 2 and large[-1].iou >= GOOD:
        yield ("best", large[-1])


def largest_false(submitted: Sequence[ObjectMatch]) -> Iterator[tuple[str, ObjectMatch]]:
    """The largest of the submission's objects that is like none of the truth's."""
    unlike = [match for match in submitted if match.iou < NONE]
    if unlike:
        yield ("false", max(unlike, key=lambda match: match.voxels))


def counts_along_thresholds(
    probability: Probability, name: str, truth: NDArray[Any], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Voxels right, wrong and missed at each of THRESHOLDS, the class standing alone: (threshold, 3)."""
    thresholds = np.array(THRESHOLDS, np.float32)
    total = np.zeros((len(THRESHOLDS), 3), np.int64)
    for slab in slabs(truth.shape):
        p, true = probability.of(name, slab), truth[slab.slices] > 0
        if mask is not None:
            counts = mask[slab.slices]
            p, true = p[counts], true[counts]
        total += threshold_counts(p, true, thresholds)
    return total
