"""Connected components and objects of a mask too large to hold, read slab by slab.

A mask is a function from a block (slices z, y, x) to a bool array. Memory is a few slabs and a row per object.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble.core.box import Slices
from ensemble.core.grid import Grid
from ensemble.core.tiling import CHUNK, slabs
from ensemble.methods.objects import ObjectTable

ReadBlock = Callable[[Slices], np.ndarray]


class LabelledObjects(Protocol):
    """Objects of a crop: object k of the table has label k + 1."""

    objects: ObjectTable

    def touched(self, start: int, stop: int) -> Slices | None:
        """A box within a slab of ``tiling.slabs`` beyond which no label is; None where there is none."""
        ...

    def read(self, block: Slices) -> np.ndarray:
        """The labels of a block inside one slab of ``tiling.slabs``, uint32; 0 is background."""
        ...


@dataclass(frozen=True)
class _Slab:
    """What the first pass finds in one slab, its components numbered from 1.

    ``above`` labels the plane before the slab, ``last`` the slab's last plane, both on the box's rows and
    columns. A component that is only in the plane before has size 0.
    """

    box: Slices
    above: np.ndarray | None
    last: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    peaks: np.ndarray


class Components:
    """The connected components of a mask, numbered in the order of their first slab.

    Each slab is labelled together with the last plane of the slab before it; components that share a voxel
    of that plane are one. ``occupied`` says which blocks of ``tiling.CHUNK`` may hold any of the mask; only
    the box around those is read. The numbers do not depend on ``workers``.
    """

    objects: ObjectTable

    def __init__(
        self,
        grid: Grid,
        read: ReadBlock,
        *,
        connectivity: int = 26,
        probability: ReadBlock | None = None,
        occupied: np.ndarray | None = None,
        workers: int = 1,
    ) -> None:
        self.grid = grid
        self._read = read
        self._connectivity = connectivity
        self._probability = probability
        self._boxes = {start: self._box(number, occupied) for number, (start, _) in enumerate(slabs(grid.shape[0]))}
        self._cached: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()
        occupied_slabs = [(a, b) for a, b in slabs(grid.shape[0]) if self._boxes[a] is not None]
        with ThreadPoolExecutor(workers) as pool:
            found = dict(zip([a for a, _ in occupied_slabs], pool.map(self._survey, occupied_slabs), strict=True))
        self._join(found)

    def _box(self, number: int, occupied: np.ndarray | None) -> Slices | None:
        """The slab's rows and columns that may hold the mask, and one more voxel to each side."""
        start, stop = slabs(self.grid.shape[0])[number]
        if occupied is None:
            return (slice(start, stop), slice(0, self.grid.shape[1]), slice(0, self.grid.shape[2]))
        here = occupied[number]
        if not here.any():
            return None
        bounds = [slice(start, stop)]
        for axis in (1, 2):
            chunks = np.flatnonzero(here.any(axis=2 - axis))
            low, high = int(chunks[0]) * CHUNK[axis] - 1, (int(chunks[-1]) + 1) * CHUNK[axis] + 1
            bounds.append(slice(max(low, 0), min(high, self.grid.shape[axis])))
        return tuple(bounds)

    def _local(self, box: Slices) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels of the slab, and of the plane before it."""
        z = box[0]
        mask = self._read((slice(max(z.start - 1, 0), z.stop), *box[1:]))
        labels = cc3d.connected_components(
            mask.view(np.uint8), connectivity=self._connectivity, out_dtype=np.uint32, binary_image=True
        )
        return (labels[1:], labels[0]) if z.start else (labels, None)

    def _survey(self, bounds: tuple[int, int]) -> _Slab:
        box = self._boxes[bounds[0]]
        core, above = self._local(box)
        count = max(int(core.max()), 0 if above is None else int(above.max()))
        sizes = np.zeros(count, np.int64)
        starts = np.full((count, 3), np.iinfo(np.int64).max)
        stops = np.zeros((count, 3), np.int64)
        if count:
            statistics = cc3d.statistics(core, no_slice_conversion=True)
            counts = statistics["voxel_counts"][1:].astype(np.int64)
            present = np.flatnonzero(counts)
            sizes[present] = counts[present]
            boxes = statistics["bounding_boxes"][1:].astype(np.int64)[present]
            corner = np.array([s.start for s in box])
            starts[present] = boxes[:, 0::2] + corner
            stops[present] = boxes[:, 1::2] + 1 + corner
        above = None if above is None else above.copy()
        return _Slab(box, above, core[-1].copy(), sizes, starts, stops, self._peaks(core, count, box))

    def _peaks(self, core: np.ndarray, count: int, box: Slices) -> np.ndarray:
        peaks = np.full(count, -np.inf, np.float32)
        if self._probability is not None and count:
            where = core > 0
            np.maximum.at(peaks, core[where].astype(np.int64) - 1, self._probability(box)[where])
        return peaks

    def _join(self, found: dict[int, _Slab]) -> None:
        total, pairs = 0, [np.zeros((0, 2), np.int64)]
        self._offsets: dict[int, int] = {}
        previous: tuple[int, _Slab] | None = None
        for start, slab in found.items():
            if previous is not None and slab.above is not None and previous[1].box[0].stop == start:
                pairs.append(_shared(previous[1], slab) + (previous[0], total))
            self._offsets[start] = total
            previous = (total, slab)
            total += len(slab.sizes)
        joined = np.concatenate(pairs) - 1
        graph = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(total, total))
        count, root = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int64))
        first = np.full(count, total, np.int64)
        np.minimum.at(first, root, np.arange(total))
        rank = np.empty(count, np.int64)
        rank[np.argsort(first)] = np.arange(count)
        new = rank[root]
        sizes = np.zeros(count, np.int64)
        starts = np.full((count, 3), np.iinfo(np.int64).max)
        stops = np.zeros((count, 3), np.int64)
        peaks = np.full(count, -np.inf, np.float32)
        for start, slab in found.items():
            here = new[self._offsets[start] : self._offsets[start] + len(slab.sizes)]
            np.add.at(sizes, here, slab.sizes)
            np.minimum.at(starts, here, slab.starts)
            np.maximum.at(stops, here, slab.stops)
            np.maximum.at(peaks, here, slab.peaks)
        self._lookup = (new + 1).astype(np.uint32)
        touches_border = ((starts == 0) | (stops == self.grid.shape)).any(axis=1)
        self.objects = ObjectTable(sizes, starts, stops, touches_border, peaks, self.grid.voxel_volume_nm3)

    def touched(self, start: int, stop: int) -> Slices | None:
        return self._boxes[start]

    def read(self, block: Slices) -> np.ndarray:
        start = block[0].start // CHUNK[0] * CHUNK[0]
        box = self._boxes[start]
        if box is None:
            return np.zeros([s.stop - s.start for s in block], np.uint32)
        return _cut_out(self._slab(start), box, block)

    def _slab(self, start: int) -> np.ndarray:
        """The labels of a slab's box; the slab that was read last is kept."""
        with self._lock:
            if self._cached is None or self._cached[0] != start:
                self._cached = None
                core, _ = self._local(self._boxes[start])
                offset = self._offsets[start]
                local = np.concatenate([np.zeros(1, np.uint32), self._lookup[offset : offset + int(core.max())]])
                self._cached = (start, np.take(local, core))
            return self._cached[1]


def _cut_out(values: np.ndarray, box: Slices, block: Slices) -> np.ndarray:
    """A block of what ``values`` are on ``box`` and 0 elsewhere."""
    both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, block, strict=True)]
    inside = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(both, box, strict=True))
    if all(s == b for s, b in zip(both, block, strict=True)):
        return values[inside]
    out = np.zeros([s.stop - s.start for s in block], values.dtype)
    if all(s.stop > s.start for s in both):
        out[tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(both, block, strict=True))] = values[
            inside
        ]
    return out


def _shared(before: _Slab, after: _Slab) -> np.ndarray:
    """Pairs (component of the slab before, component of this slab) that share a voxel; (k, 2)."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(before.box[1:], after.box[1:], strict=True)
    )
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return np.zeros((0, 2), np.int64)
    first, second = (
        plane[
            rows.start - box[1].start : rows.stop - box[1].start,
            columns.start - box[2].start : columns.stop - box[2].start,
        ]
        for plane, box in ((before.last, before.box), (after.above, after.box))
    )
    both = (first > 0) & (second > 0)
    return np.unique(np.stack([first[both], second[both]], axis=1).astype(np.int64), axis=0)


class KeptObjects:
    """Some of another's objects, renumbered; the rest are background."""

    def __init__(self, labelled: LabelledObjects, keep: np.ndarray) -> None:
        self._labelled = labelled
        self._lookup = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(np.uint32)
        self.objects = labelled.objects.where(keep)

    def touched(self, start: int, stop: int) -> Slices | None:
        return self._labelled.touched(start, stop)

    def read(self, block: Slices) -> np.ndarray:
        return np.take(self._lookup, self._labelled.read(block))
