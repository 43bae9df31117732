"""The objects of two label volumes, and how many voxels they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from ensemble.core import Box, zyx
from ensemble.support import in_threads

MAX_TRUTH_ID = 10_000_000
"""Every id up to the highest one of the truth takes part in the matching, whether it occurs or not."""

_VOXELS_AT_A_TIME = 2**23


def truth_ids(volume: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    """The truth as unsigned ids, C-contiguous, copied only if need be.

    Raises ValueError for anything but three axes of whole numbers from 0 to MAX_TRUTH_ID.
    """
    ids = _ids(volume)
    highest = int(ids.max(initial=0))
    if highest > MAX_TRUTH_ID:
        raise ValueError(f"has the id {highest:,}; renumber its objects, ids go up to {MAX_TRUTH_ID:,}")
    return ids


def split_objects(volume: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger], int]:
    """A prediction relabelled so that each 26-connected part of each id is an object, and their number.

    Touching ids stay apart. Numbers are 1, 2, … in the order in which a scan along x, y, z meets the objects.
    Raises ValueError for anything but three axes of whole numbers from 0.
    """
    objects, count = cc3d.connected_components(_ids(volume), connectivity=26, return_N=True)
    return objects, count


def _ids(volume: NDArray[Any]) -> NDArray[np.unsignedinteger]:
    if volume.ndim != 3:
        raise ValueError(f"has {volume.ndim} axes where three are expected: z, y, x")
    if volume.dtype.kind not in "bui":
        raise ValueError(f"has dtype {volume.dtype}; ids are whole numbers")
    if volume.dtype.kind == "i" and volume.min(initial=0) < 0:
        raise ValueError(f"has the id {volume.min()}; ids are not negative")
    native = volume.astype(volume.dtype.newbyteorder("="), order="C", copy=False)
    ids: NDArray[np.unsignedinteger] = native.view(f"u{native.dtype.itemsize}")
    return ids


@dataclass(frozen=True)
class OverlapTable:
    """How many voxels truth id i and predicted object j share: ``table[i, j]``; 0 is background."""

    table: csr_array[np.int64, tuple[int, int]]

    @cached_property
    def truth_sizes(self) -> NDArray[np.int64]:
        """Voxels by truth id, background included; 0 for ids that do not occur."""
        return np.asarray(self.table.sum(axis=1))

    @cached_property
    def predicted_sizes(self) -> NDArray[np.int64]:
        """Voxels by predicted object, background included."""
        return np.asarray(self.table.sum(axis=0))

    @cached_property
    def truth_ids(self) -> NDArray[np.int64]:
        """The ids that occur, ascending."""
        return np.flatnonzero(self.truth_sizes[1:]) + 1

    @property
    def predicted(self) -> int:
        """Number of predicted objects."""
        return self.table.shape[1] - 1

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Truth id, predicted object and common voxels of all that overlap, sorted by both."""
        table = self.table.tocoo()
        both = (table.row > 0) & (table.col > 0)
        return table.row[both].astype(np.int64), table.col[both].astype(np.int64), table.data[both]

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of every pair."""
        truth, predicted, shared = self.pairs
        return np.asarray(shared / (self.truth_sizes[truth] + self.predicted_sizes[predicted] - shared))


def overlap_table(truth: NDArray[Any], predicted: NDArray[Any], *, threads: int = 1) -> OverlapTable:
    """What two C-contiguous label volumes of one shape share, in one pass over their runs."""
    shape = (int(truth.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1)
    flat_truth, flat_predicted = truth.reshape(-1), predicted.reshape(-1)

    def count(start: int) -> csr_array[np.int64, tuple[int, int]]:
        part = slice(start, start + _VOXELS_AT_A_TIME)
        return _count(flat_truth[part], flat_predicted[part], shape)

    table: csr_array[np.int64, tuple[int, int]] = csr_array(shape, dtype=np.int64)
    for part in in_threads(threads, count, range(0, flat_truth.size, _VOXELS_AT_A_TIME)):
        table = table + part
    table.sort_indices()
    return OverlapTable(table)


def _count(
    truth: NDArray[Any], predicted: NDArray[Any], shape: tuple[int, int]
) -> csr_array[np.int64, tuple[int, int]]:
    """Labels hardly change from voxel to voxel, so runs of equal pairs are counted, not voxels."""
    changes = truth[1:] != truth[:-1]
    changes |= predicted[1:] != predicted[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=truth.size)
    where = truth[starts].astype(np.int32), predicted[starts].astype(np.int32)
    return coo_array((lengths, where), shape=shape).tocsr()


def box_of(index: Sequence[slice]) -> Box:
    """The box that an index cuts out, such as those of scipy's ``find_objects``."""
    return Box(zyx(s.start for s in index), zyx(s.stop for s in index))
