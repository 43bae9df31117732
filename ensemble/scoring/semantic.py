"""One crop of a semantic class: voxels of the truth that were found, missed and made up."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Voxels:
    """Voxels that are rightly foreground, wrongly so, and wrongly not; blocks of a volume add up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Voxels") -> "Voxels":
        return Voxels(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def count_voxels(truth: np.ndarray, prediction: np.ndarray) -> Voxels:
    """The voxels of two volumes of one shape, whose foreground is everything above 0."""
    if truth.shape != prediction.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the prediction {prediction.shape}")
    total = Voxels()
    for true, predicted in zip(truth, prediction, strict=True):
        found, wanted = _foreground(predicted), _foreground(true)
        tp = int(np.count_nonzero(found & wanted))
        total += Voxels(tp, int(np.count_nonzero(found)) - tp, int(np.count_nonzero(wanted)) - tp)
    return total


def _foreground(plane: np.ndarray) -> np.ndarray:
    return plane if plane.dtype == bool else plane > 0


def threshold_counts(p: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Voxels right, wrong and missed at every threshold (ascending), of p > threshold: int64 (threshold, 3).

    ``truth`` bool; blocks of a volume add up.
    """
    above = np.searchsorted(thresholds, p.ravel(), side="left")  # so many thresholds lie below p
    n = len(thresholds) + 1
    inside = np.bincount(above[truth.ravel()], minlength=n)
    outside = np.bincount(above[~truth.ravel()], minlength=n)
    tp = inside[::-1].cumsum()[::-1][1:]
    fp = outside[::-1].cumsum()[::-1][1:]
    return np.stack([tp, fp, inside.sum() - tp], axis=1)
