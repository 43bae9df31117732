"""How the ids of two arrays lie over each other, added up block by block: a row for every pair that meets."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]
"""Id in a, id in b, voxels that have both."""

_SAME = 0.5
"""IoU above which two objects are the same; no object can exceed it with two others."""


class Overlaps:
    """Of two arrays of ids, 0 being background; ``add`` all blocks first."""

    def __init__(self) -> None:
        self._parts: list[Rows] = []

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Count a block of both."""
        a, b = a.reshape(-1), b.reshape(-1)
        starts = np.concatenate([[0], np.flatnonzero((a[1:] != a[:-1]) | (b[1:] != b[:-1])) + 1])  # ids come in runs
        self._parts.append(_summed(a[starts], b[starts], np.diff(starts, append=a.size)))

    @cached_property
    def pairs(self) -> Rows:
        """Id in a, id in b (0 too), and how many voxels have both: uint64, uint64, int64 (pairs,)."""
        if not self._parts:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return _summed(*(np.concatenate(column) for column in zip(*self._parts, strict=True)))

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Of each pair; 0 where either is background."""
        a, b, voxels = self.pairs
        (of_a, in_a), (of_b, in_b) = (np.unique(ids, return_inverse=True) for ids in (a, b))
        sizes = np.bincount(in_a, voxels, len(of_a))[in_a] + np.bincount(in_b, voxels, len(of_b))[in_b]
        return np.where((a > 0) & (b > 0), voxels / (sizes - voxels), 0.0)

    @property
    def objects(self) -> tuple[int, int]:
        """Number of ids in a and in b."""
        a, b, _ = self.pairs
        return len(np.unique(a[a > 0])), len(np.unique(b[b > 0]))

    @cached_property
    def matches(self) -> dict[int, int]:
        """Id in b -> id in a of the objects that are the same: their IoU exceeds one half."""
        a, b, _ = self.pairs
        same = self.iou > _SAME
        return dict(zip(b[same].tolist(), a[same].tolist(), strict=True))

    @property
    def moved_voxels(self) -> int:
        """Voxels that are in objects of both which are not the same."""
        a, b, voxels = self.pairs
        ours = np.array([self.matches.get(label, 0) for label in b.tolist()], np.uint64)
        return int(voxels[(a > 0) & (b > 0) & (ours != a)].sum())


def _summed(a: NDArray[Any], b: NDArray[Any], voxels: NDArray[Any]) -> Rows:
    """Rows that name the same pair become one."""
    (of_a, in_a), (of_b, in_b) = (np.unique(ids.astype(np.uint64), return_inverse=True) for ids in (a, b))
    pairs, where = np.unique(in_a * len(of_b) + in_b, return_inverse=True)
    return of_a[pairs // len(of_b)], of_b[pairs % len(of_b)], np.bincount(where, voxels).astype(np.int64)
