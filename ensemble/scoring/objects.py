"""The objects of two label volumes, and how many voxels they share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
from scipy.sparse import coo_array, csr_array

MAX_TRUTH_ID = 10_000_000
"""Every id up to the highest one of the truth takes part in the matching, whether it occurs or not."""

_CONNECTIVITY = 26
_VOXELS_AT_A_TIME = 2**23


def truth_ids(volume: np.ndarray) -> np.ndarray:
    """The truth as unsigned ids, C-contiguous, copied only if need be.

    Raises ValueError for anything but three axes of whole numbers from 0 to MAX_TRUTH_ID.
    """
    volume = _ids(volume)
    highest = int(volume.max(initial=0))
    if highest > MAX_TRUTH_ID:
        raise ValueError(f"has the id {highest:,}; renumber its objects, ids go up to {MAX_TRUTH_ID:,}")
    return volume


def split_objects(volume: np.ndarray) -> tuple[np.ndarray, int]:
    """A prediction relabelled so that each 26-connected part of each id is an object, and their number.

    Touching ids stay apart. Numbers are 1, 2, … in the order in which a scan along x, y, z meets the objects.
    Raises ValueError for anything but three axes of whole numbers from 0.
    """
    return cc3d.connected_components(_ids(volume), connectivity=_CONNECTIVITY, return_N=True)


def _ids(volume: np.ndarray) -> np.ndarray:
    if volume.ndim != 3:
        raise ValueError(f"has {volume.ndim} axes where three are expected: z, y, x")
    if volume.dtype.kind not in "bui":
        raise ValueError(f"has dtype {volume.dtype}; ids are whole numbers")
    if volume.dtype.kind == "i" and volume.min(initial=0) < 0:
        raise ValueError(f"has the id {volume.min()}; ids are not negative")
    native = volume.astype(volume.dtype.newbyteorder("="), order="C", copy=False)
    return native.view(f"u{native.dtype.itemsize}")


@dataclass(frozen=True)
class ObjectOverlaps:
    """How many voxels truth id i and predicted object j share: ``table[i, j]``; 0 is background."""

    table: csr_array

    @cached_property
    def truth_sizes(self) -> np.ndarray:
        """Voxels by truth id, background included; 0 for ids that do not occur."""
        return self.table.sum(axis=1)

    @cached_property
    def predicted_sizes(self) -> np.ndarray:
        """Voxels by predicted object, background included."""
        return self.table.sum(axis=0)

    @cached_property
    def truth_ids(self) -> np.ndarray:
        """The ids that occur, ascending."""
        return np.flatnonzero(self.truth_sizes[1:]) + 1

    @property
    def predicted(self) -> int:
        """Number of predicted objects."""
        return self.table.shape[1] - 1

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth id, predicted object and common voxels of all that overlap, sorted by both."""
        table = self.table.tocoo()
        both = (table.row > 0) & (table.col > 0)
        return table.row[both].astype(np.int64), table.col[both].astype(np.int64), table.data[both]

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union of every pair, float64."""
        truth, predicted, shared = self.pairs
        return shared / (self.truth_sizes[truth] + self.predicted_sizes[predicted] - shared)


def overlaps(truth: np.ndarray, predicted: np.ndarray, *, threads: int = 1) -> ObjectOverlaps:
    """What two C-contiguous label volumes of one shape share, in one pass over their runs."""
    shape = (int(truth.max(initial=0)) + 1, int(predicted.max(initial=0)) + 1)
    flat_truth, flat_predicted = truth.reshape(-1), predicted.reshape(-1)

    def count(start: int) -> csr_array:
        part = slice(start, start + _VOXELS_AT_A_TIME)
        return _count(flat_truth[part], flat_predicted[part], shape)

    table = csr_array(shape, dtype=np.int64)
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(count, range(0, flat_truth.size, _VOXELS_AT_A_TIME)):
            table = table + part
    table.sort_indices()
    return ObjectOverlaps(table)


def _count(truth: np.ndarray, predicted: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Labels hardly change from voxel to voxel, so runs of equal pairs are counted, not voxels."""
    changes = truth[1:] != truth[:-1]
    changes |= predicted[1:] != predicted[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=truth.size)
    where = truth[starts].astype(np.int32), predicted[starts].astype(np.int32)
    return coo_array((lengths, where), shape=shape).tocsr()
