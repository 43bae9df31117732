"""The score of a semantic class along its threshold, from one pass over its voxels."""

import numpy as np


def counts(p: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
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
