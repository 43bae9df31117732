"""One crop of a semantic class: voxels of the truth that were found, missed and made up."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels that are rightly foreground, wrongly so, and wrongly not; blocks of a volume add up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "VoxelCounts") -> "VoxelCounts":
        return VoxelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def count_voxels(truth: NDArray[Any], prediction: NDArray[Any]) -> VoxelCounts:
    """The voxels of two volumes of one shape, whose foreground is everything above 0."""
    if truth.shape != prediction.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the prediction {prediction.shape}")
    total = VoxelCounts()
    for true, predicted in zip(truth, prediction, strict=True):
        found, wanted = _foreground(predicted), _foreground(true)
        tp = int(np.count_nonzero(found & wanted))
        total += VoxelCounts(tp, int(np.count_nonzero(found)) - tp, int(np.count_nonzero(wanted)) - tp)
    return total


def _foreground(plane: NDArray[Any]) -> NDArray[np.bool_]:
    return plane if plane.dtype == bool else np.asarray(plane > 0)


def threshold_counts(
    p: NDArray[np.float32], truth: NDArray[np.bool_], thresholds: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Voxels right, wrong and missed at every threshold (ascending), of p > threshold: (threshold, 3).

    Blocks of a volume add up.
    """
    above = np.searchsorted(thresholds, p.ravel(), side="left")  # so many thresholds lie below p
    n = len(thresholds) + 1
    inside = np.bincount(above[truth.ravel()], minlength=n)
    outside = np.bincount(above[~truth.ravel()], minlength=n)
    tp = inside[::-1].cumsum()[::-1][1:]
    fp = outside[::-1].cumsum()[::-1][1:]
    return np.stack([tp, fp, inside.sum() - tp], axis=1)
