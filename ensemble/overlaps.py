"""How the ids of two arrays lie over each other, added up block by block: a row for every pair that meets."""

from functools import cached_property

import numpy as np

_SAME = 0.5
"""IoU above which two objects are the same; no object can exceed it with two others."""


class Overlaps:
    """Of two arrays of ids, 0 being background; ``add`` all blocks first."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Count a block of both, ids below 2^32."""
        pairs = (a.astype(np.uint64).reshape(-1) << np.uint64(32)) | b.reshape(-1).astype(np.uint64)
        starts = np.concatenate([[0], np.flatnonzero(pairs[1:] != pairs[:-1]) + 1])  # ids come in runs
        found, where = np.unique(pairs[starts], return_inverse=True)
        self._parts.append((found, np.bincount(where, np.diff(starts, append=pairs.size)).astype(np.int64)))

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Id in a, id in b, voxels."""
        if not self._parts:
            return (np.zeros(0, np.int64),) * 3
        pairs, where = np.unique(np.concatenate([pairs for pairs, _ in self._parts]), return_inverse=True)
        voxels = np.bincount(where, np.concatenate([voxels for _, voxels in self._parts])).astype(np.int64)
        return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(2**32 - 1)).astype(np.int64), voxels

    @property
    def objects(self) -> tuple[int, int]:
        """Number of ids in a and in b."""
        a, b, _ = self._rows
        return len(np.unique(a[a > 0])), len(np.unique(b[b > 0]))

    @cached_property
    def matches(self) -> dict[int, int]:
        """Id in b -> id in a of the objects that are the same: their IoU exceeds one half."""
        a, b, voxels = self._rows
        (of_a, in_a), (of_b, in_b) = (np.unique(ids, return_inverse=True) for ids in (a, b))
        sizes = np.bincount(in_a, voxels, len(of_a))[in_a] + np.bincount(in_b, voxels, len(of_b))[in_b]
        same = (a > 0) & (b > 0) & (voxels > _SAME * (sizes - voxels))
        return dict(zip(b[same].tolist(), a[same].tolist(), strict=True))

    @property
    def moved_voxels(self) -> int:
        """Voxels that are in objects of both which are not the same."""
        a, b, voxels = self._rows
        ours = np.array([self.matches.get(one, 0) for one in b.tolist()], np.int64)
        return int(voxels[(a > 0) & (b > 0) & (ours != a)].sum())
