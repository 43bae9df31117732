"""Connected components and objects of a mask too large to hold, read slab by slab.

A mask is a function from a box to a bool array. Memory is a few slabs and a row per object.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble.core import CHUNK, Box, Grid, slabs
from ensemble.methods.objects import ObjectTable
from ensemble.support import in_threads

ReadBlock = Callable[[Box], NDArray[Any]]
"""The values of a box of a crop."""

Connectivity = Literal[6, 18, 26]
"""How many neighbours of a voxel belong to it."""

_NO_PAIRS = np.zeros((0, 2), np.int64)

_SPARSE = 12
"""Where less than one voxel of so many is labelled, looking at those alone is quicker."""


class LabelledObjects(Protocol):
    """Objects of a crop: object k of the table has label k + 1."""

    @property
    def objects(self) -> ObjectTable: ...

    def touched(self, slab: Box) -> Box | None:
        """A box within a slab of ``tiling.slabs`` beyond which no label is; None where there is none."""
        ...

    def read(self, box: Box) -> NDArray[np.uint32]:
        """The labels of a box inside one slab of ``tiling.slabs``; 0 is background."""
        ...


@dataclass(frozen=True)
class _Slab:
    """What the first pass finds in one slab, its components numbered from 1.

    ``above`` labels the plane before the slab, ``last`` the slab's last plane, both on the box's rows and
    columns. A component that is only in the plane before has size 0.
    """

    box: Box
    above: NDArray[np.uint32] | None
    last: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    peaks: NDArray[np.float32]


@dataclass(frozen=True)
class _Mask:
    """A mask read by slabs. ``boxes``: by the plane it starts at, the part of each slab that may hold the mask."""

    read: ReadBlock
    connectivity: Connectivity
    boxes: dict[int, Box | None]

    def labelled(self, box: Box) -> tuple[NDArray[np.uint32], NDArray[np.uint32] | None]:
        """Labels of a slab's box, and of the plane before it."""
        first = box.start[0]
        mask = self.read(box.with_axis(0, max(first - 1, 0), box.stop[0]))
        labels = np.asarray(
            cc3d.connected_components(
                mask.view(np.uint8), connectivity=self.connectivity, out_dtype=np.uint32, binary_image=True
            ),
            np.uint32,
        )
        return (labels[1:], labels[0]) if first else (labels, None)


class Components:
    """The connected components of a mask, numbered in the order of their first slab; made by ``Components.of``."""

    def __init__(
        self, grid: Grid, mask: _Mask, objects: ObjectTable, offsets: dict[int, int], numbers: NDArray[np.uint32]
    ) -> None:
        self._grid, self._mask, self._objects = grid, mask, objects
        self._offsets, self._numbers = offsets, numbers
        self._cached: tuple[int, NDArray[np.uint32]] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls,
        grid: Grid,
        read: ReadBlock,
        *,
        connectivity: Connectivity = 26,
        probability: ReadBlock | None = None,
        occupied: NDArray[np.bool_] | None = None,
        workers: int = 1,
    ) -> "Components":
        """Read the whole mask, slab by slab.

        Each slab is labelled together with the last plane of the slab before it; components that share a voxel
        of that plane are one. ``occupied`` says which blocks of ``tiling.CHUNK`` may hold any of the mask; only
        the box around those is read. The numbers do not depend on ``workers``.
        """
        boxes = {slab.start[0]: _box_of(slab, number, occupied) for number, slab in enumerate(slabs(grid.shape))}
        mask = _Mask(read, connectivity, boxes)
        used = [box for box in boxes.values() if box is not None]
        surveyed = list(in_threads(workers, lambda box: _survey(mask, box, probability), used))
        table, offsets, numbers = _joined(grid, surveyed)
        return cls(grid, mask, table, offsets, numbers)

    @property
    def objects(self) -> ObjectTable:
        return self._objects

    def touched(self, slab: Box) -> Box | None:
        return self._mask.boxes[slab.start[0]]

    def read(self, box: Box) -> NDArray[np.uint32]:
        start = box.start[0] // CHUNK[0] * CHUNK[0]
        touched = self._mask.boxes[start]
        if touched is None:
            return np.zeros(box.shape, np.uint32)
        return _cut_out(self._slab(start, touched), touched, box)

    def _slab(self, start: int, box: Box) -> NDArray[np.uint32]:
        """The labels of a slab's box; the slab that was read last is kept."""
        with self._lock:
            if self._cached is None or self._cached[0] != start:
                self._cached = None
                labels, _ = self._mask.labelled(box)
                offset = self._offsets[start]
                local = np.concatenate([np.zeros(1, np.uint32), self._numbers[offset : offset + int(labels.max())]])
                self._cached = (start, renumbered(labels, local))
            return self._cached[1]


def _box_of(slab: Box, number: int, occupied: NDArray[np.bool_] | None) -> Box | None:
    """The slab's rows and columns that may hold the mask, and one more voxel to each side."""
    if occupied is None:
        return slab
    here = occupied[number]
    if not here.any():
        return None
    box = slab
    for axis in (1, 2):
        chunks = np.flatnonzero(here.any(axis=2 - axis))
        box = box.with_axis(axis, int(chunks[0]) * CHUNK[axis] - 1, (int(chunks[-1]) + 1) * CHUNK[axis] + 1)
    return box.intersect(slab)


def _survey(mask: _Mask, box: Box, probability: ReadBlock | None) -> _Slab:
    core, above = mask.labelled(box)
    count = max(int(core.max()), 0 if above is None else int(above.max()))
    sizes = np.zeros(count, np.int64)
    starts = np.full((count, 3), np.iinfo(np.int64).max)
    stops = np.zeros((count, 3), np.int64)
    peaks = np.full(count, -np.inf, np.float32)
    if count:
        inside = core > 0
        measure = _measured_by_runs if np.count_nonzero(inside) * _SPARSE < inside.size else _measured
        ids, sizes_here, starts_here, stops_here = measure(core, inside)
        sizes[ids], starts[ids], stops[ids] = sizes_here, starts_here + box.start, stops_here + box.start
        if probability is not None:
            np.maximum.at(peaks, core[inside].astype(np.int64) - 1, probability(box)[inside])
    return _Slab(box, None if above is None else above.copy(), core[-1].copy(), sizes, starts, stops, peaks)


Measured = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Which labels there are, from 0, and of each its voxels and where its box starts and stops."""


def _measured(labels: NDArray[np.uint32], inside: NDArray[np.bool_]) -> Measured:
    statistics = cc3d.statistics(labels, no_slice_conversion=True)
    counts = np.asarray(statistics["voxel_counts"], np.int64)[1:]
    present = np.flatnonzero(counts)
    boxes = np.asarray(statistics["bounding_boxes"], np.int64)[1:][present]
    return present, counts[present], boxes[:, 0::2], boxes[:, 1::2] + 1


def _measured_by_runs(labels: NDArray[np.uint32], inside: NDArray[np.bool_]) -> Measured:
    """The same, looking only at voxels that have a label: quicker where few have."""
    at = np.flatnonzero(inside)
    ids = labels.reshape(-1)[at]
    goes_on = (ids[1:] == ids[:-1]) & (at[1:] == at[:-1] + 1) & (at[1:] % labels.shape[2] > 0)
    first = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    lengths = np.diff(first, append=len(at))
    z, y, x = np.unravel_index(at[first], labels.shape)
    present, of = np.unique(ids[first], return_inverse=True)
    starts, stops = np.full((len(present), 3), np.iinfo(np.int64).max), np.zeros((len(present), 3), np.int64)
    for axis, (lowest, highest) in enumerate(((z, z), (y, y), (x, x + lengths - 1))):
        np.minimum.at(starts[:, axis], of, lowest)
        np.maximum.at(stops[:, axis], of, highest + 1)
    return present.astype(np.int64) - 1, np.bincount(of, lengths).astype(np.int64), starts, stops


def _joined(grid: Grid, surveyed: Sequence[_Slab]) -> tuple[ObjectTable, dict[int, int], NDArray[np.uint32]]:
    """All slabs' components as one table; where each slab's begin, and the label of each."""
    total, pairs = 0, [_NO_PAIRS]
    offsets: dict[int, int] = {}
    for index, slab in enumerate(surveyed):
        start = slab.box.start[0]
        before = surveyed[index - 1] if index else None
        if before is not None and before.box.stop[0] == start:
            pairs.append(_shared(before, slab) + (total - len(before.sizes), total))
        offsets[start] = total
        total += len(slab.sizes)
    joined = np.concatenate(pairs) - 1
    graph = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(total, total))
    count, root = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int64))
    first = np.full(count, total, np.int64)
    np.minimum.at(first, root, np.arange(total))
    rank = np.empty(count, np.int64)
    rank[np.argsort(first)] = np.arange(count)
    numbers = rank[root]
    sizes = np.zeros(count, np.int64)
    starts = np.full((count, 3), np.iinfo(np.int64).max)
    stops = np.zeros((count, 3), np.int64)
    peaks = np.full(count, -np.inf, np.float32)
    for slab in surveyed:
        offset = offsets[slab.box.start[0]]
        here = numbers[offset : offset + len(slab.sizes)]
        np.add.at(sizes, here, slab.sizes)
        np.minimum.at(starts, here, slab.starts)
        np.maximum.at(stops, here, slab.stops)
        np.maximum.at(peaks, here, slab.peaks)
    touches_border = ((starts == 0) | (stops == grid.shape)).any(axis=1)
    table = ObjectTable(sizes, starts, stops, touches_border, peaks, grid.voxel_volume_nm3)
    return table, offsets, (numbers + 1).astype(np.uint32)


def _cut_out(values: NDArray[np.uint32], box: Box, wanted: Box) -> NDArray[np.uint32]:
    """What ``values`` are on ``box``, and 0 elsewhere, over the wanted box."""
    both = wanted.intersect(box)
    if both == wanted:
        return values[wanted.relative_to(box).slices]
    out = np.zeros(wanted.shape, values.dtype)
    if both.size:
        out[both.relative_to(wanted).slices] = values[both.relative_to(box).slices]
    return out


def _shared(before: _Slab, after: _Slab) -> NDArray[np.int64]:
    """Pairs (component of the slab before, component of this slab) that share a voxel; (k, 2)."""
    assert after.above is not None  # only the first slab has no plane before it
    plane = Box.of_shape((1, *before.last.shape)).shifted((0, *before.box.start[1:]))
    beside = Box.of_shape((1, *after.above.shape)).shifted((0, *after.box.start[1:]))
    both = plane.intersect(beside)
    if not both.size:
        return _NO_PAIRS
    first = before.last[None][both.relative_to(plane).slices]
    second = after.above[None][both.relative_to(beside).slices]
    shared = (first > 0) & (second > 0)
    several = np.int64(second.max()) + 1
    pairs = np.unique(first[shared] * several + second[shared])  # of single numbers, which are sorted quickly
    return np.stack([pairs // several, pairs % several], axis=1)


def renumbered(labels: NDArray[np.uint32], numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """``numbers`` of the labels, all of which it has; a plane at a time, as NumPy makes an index of twice the size."""
    out = np.empty(labels.shape, np.uint32)
    for plane, of_plane in zip(labels, out, strict=True):
        np.take(numbers, plane, out=of_plane, mode="clip")
    return out


class KeptObjects:
    """Some of another's objects, renumbered; the rest are background."""

    def __init__(self, labelled: LabelledObjects, keep: NDArray[np.bool_]) -> None:
        self._labelled = labelled
        self._numbers = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(np.uint32)
        self._objects = labelled.objects.where(keep)

    @property
    def objects(self) -> ObjectTable:
        return self._objects

    def touched(self, slab: Box) -> Box | None:
        return self._labelled.touched(slab)

    def read(self, box: Box) -> NDArray[np.uint32]:
        return renumbered(self._labelled.read(box), self._numbers)
