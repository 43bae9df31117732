"""Connected components and objects of a mask too large to hold, read slab by slab.

A mask is a function from (start, stop) along z to a bool array. Memory is a few slabs and a row per object.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ensemble.grid import Grid, Slices
from ensemble.methods import Step
from ensemble.postprocess import Objects
from ensemble.tiling import slabs

ReadSlab = Callable[[int, int], np.ndarray]
ReadBlock = Callable[[Slices], np.ndarray]


class Labelled(Protocol):
    """Objects of a crop: object k of the table has label k + 1."""

    objects: Objects

    def slab(self, start: int, stop: int) -> np.ndarray:
        """The labels of planes start ... stop - 1, uint32; 0 is background. A slab of ``tiling.slabs``."""
        ...


@dataclass
class _Found:
    """What the first pass collects of the components of each slab, numbered through."""

    sizes: list[np.ndarray]
    starts: list[np.ndarray]
    stops: list[np.ndarray]
    peaks: list[np.ndarray]
    pairs: list[np.ndarray]


class Components:
    """The connected components of a mask, numbered in the order of their first slab.

    Each slab is labelled together with the last plane of the slab before it; components that share a voxel
    of that plane are one. ``inside`` gives one voxel's coordinates per component.
    """

    objects: Objects

    def __init__(
        self, grid: Grid, read: ReadSlab, *, connectivity: int = 26, probability: ReadSlab | None = None
    ) -> None:
        self.grid = grid
        self._read = read
        self._connectivity = connectivity
        self._offsets: dict[int, int] = {}
        self._cached: tuple[int, np.ndarray] | None = None
        found = _Found([], [], [], [], [])
        inside = []
        total = 0
        previous: np.ndarray | None = None
        for start, stop in slabs(grid.shape[0]):
            local, core = self._local(start, stop)
            count = int(local.max())
            self._offsets[start] = total
            if previous is not None:
                found.pairs.append(_shared(previous, local[0], total))
            inside.append(_measure(core, count, start, found))
            found.peaks.append(_peaks(core, count, probability and probability(start, stop)))
            previous = np.where(core[-1] > 0, core[-1].astype(np.int64) + total, 0)
            total += count
        self._join(found, np.concatenate(inside), total)

    def _local(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        mask = self._read(max(start - 1, 0), stop)
        local = cc3d.connected_components(mask, connectivity=self._connectivity, out_dtype=np.uint32)
        return local, local[1:] if start else local

    def _join(self, found: _Found, inside: np.ndarray, total: int) -> None:
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *found.pairs]) - 1
        graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
        count, root = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int64))
        first = np.full(count, total, np.int64)
        np.minimum.at(first, root, np.arange(total))
        rank = np.empty(count, np.int64)
        rank[np.argsort(first)] = np.arange(count)
        new = rank[root]
        sizes = np.bincount(new, np.concatenate(found.sizes), minlength=count).astype(np.int64)
        starts = np.full((count, 3), np.iinfo(np.int64).max)
        stops = np.zeros((count, 3), np.int64)
        peaks = np.full(count, -np.inf, np.float32)
        np.minimum.at(starts, new, np.concatenate(found.starts))
        np.maximum.at(stops, new, np.concatenate(found.stops))
        np.maximum.at(peaks, new, np.concatenate(found.peaks))
        self.inside = np.zeros((count, 3), np.int64)
        seen = inside[:, 0] >= 0
        self.inside[new[seen]] = inside[seen]
        self._lookup = np.concatenate([[0], new + 1]).astype(np.uint32)
        self.objects = Objects(
            sizes,
            starts,
            stops,
            ((starts == 0) | (stops == self.grid.shape)).any(axis=1),
            peaks,
            self.grid.voxel_volume_nm3,
        )

    def slab(self, start: int, stop: int) -> np.ndarray:
        if self._cached is None or self._cached[0] != start:
            _, core = self._local(start, stop)
            shifted = np.where(core > 0, core + np.uint32(self._offsets[start]), 0)
            self._cached = (start, self._lookup[shifted])
        return self._cached[1]


def _shared(previous: np.ndarray, first: np.ndarray, offset: int) -> np.ndarray:
    """Pairs (component of the slab before, component of this slab) that share a voxel; (k, 2)."""
    both = (previous > 0) & (first > 0)
    pairs = np.stack([previous[both], first[both].astype(np.int64) + offset], axis=1)
    return np.unique(pairs, axis=0)


def _measure(core: np.ndarray, count: int, start: int, found: _Found) -> np.ndarray:
    """Append sizes and boxes of components 1 ... count; returns a voxel of each, -1 where there is none."""
    inside = np.full((count, 3), -1, np.int64)
    flat = np.flatnonzero(core)
    labels = core.reshape(-1)[flat].astype(np.int64) - 1
    sizes = np.bincount(labels, minlength=count)
    starts = np.full((count, 3), np.iinfo(np.int64).max)
    stops = np.zeros((count, 3), np.int64)
    if count:
        boxes = cc3d.statistics(core, no_slice_conversion=True)["bounding_boxes"][1:].astype(np.int64)
        present = np.flatnonzero(sizes[: len(boxes)])
        starts[present] = boxes[present][:, 0::2] + (start, 0, 0)
        stops[present] = boxes[present][:, 1::2] + (start + 1, 1, 1)
        voxel = np.zeros(count, np.int64)
        voxel[labels] = flat
        found_here = sizes > 0
        inside[found_here] = np.stack(np.unravel_index(voxel[found_here], core.shape), axis=1) + (start, 0, 0)
    found.sizes.append(sizes)
    found.starts.append(starts)
    found.stops.append(stops)
    return inside


def _peaks(core: np.ndarray, count: int, probability: np.ndarray | None) -> np.ndarray:
    peaks = np.full(count, -np.inf, np.float32)
    if probability is not None:
        where = core > 0
        np.maximum.at(peaks, core[where].astype(np.int64) - 1, probability[where])
    return peaks


class Kept:
    """Some of another's objects, renumbered; the rest are background."""

    def __init__(self, labelled: Labelled, keep: np.ndarray) -> None:
        self._labelled = labelled
        self._lookup = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(np.uint32)
        table = labelled.objects
        self.objects = replace(
            table,
            size_voxels=table.size_voxels[keep],
            start=table.start[keep],
            stop=table.stop[keep],
            touches_border=table.touches_border[keep],
            peak_probability=table.peak_probability[keep],
        )
        inside = getattr(labelled, "inside", None)
        if inside is not None:
            self.inside = inside[keep]

    def slab(self, start: int, stop: int) -> np.ndarray:
        return self._lookup[self._labelled.slab(start, stop)]


class Split:
    """Every component cut into its objects by a labelling step, kept in a scratch array.

    26-connected components never touch, so each is cut alone, inside its box and one voxel around it: the
    distances there are those of the whole volume. ``scratch`` is an array-like (z, y, x) of uint32 zeros.
    """

    objects: Objects

    def __init__(
        self,
        components: Components | Kept,
        grid: Grid,
        step: Step,
        read: ReadBlock,
        scratch: np.ndarray,
        seeds: ReadBlock | None = None,
    ) -> None:
        self._components = components
        self._grid = grid
        self._step = step
        self._seeds = seeds
        self._scratch = scratch
        self._tables: list[Objects] = []
        self._count = 0
        table = components.objects
        thickness = [slice(start, stop) for start, stop in slabs(grid.shape[0])]
        slab_of = np.zeros(grid.shape[0], np.int64)
        for number, planes in enumerate(thickness):
            slab_of[planes] = number
        crossing = slab_of[table.start[:, 0]] != slab_of[table.stop[:, 0] - 1]
        for index in np.flatnonzero(crossing):
            self._cut_across_slabs(index, read)
        for number, planes in enumerate(thickness):
            here = np.flatnonzero(~crossing & (slab_of[table.start[:, 0]] == number))
            self._cut_in_slab(here, planes.start, planes.stop)
        self.objects = _concatenated(self._tables, grid.voxel_volume_nm3)

    def _cut_across_slabs(self, index: int, read: ReadBlock) -> None:
        block = self._around(index)
        mask = cc3d.connected_components(read(block), connectivity=26, out_dtype=np.uint32)
        place = tuple(self._components.inside[index] - [s.start for s in block])
        labels = self._cut(mask == mask[place], block, index)
        old = np.asarray(self._scratch[block])
        self._scratch[block] = np.where(labels > 0, labels, old)

    def _cut_in_slab(self, indices: np.ndarray, start: int, stop: int) -> None:
        if not len(indices):
            return
        ids = self._components.slab(start, stop)
        out = np.array(self._scratch[start:stop])
        for index in indices:
            block = self._around(index)
            inside = (slice(max(block[0].start, start), min(block[0].stop, stop)), *block[1:])
            local = (slice(inside[0].start - start, inside[0].stop - start), *block[1:])
            mask = ids[local] == index + 1
            # a box that ends with the slab still has background around it in the volume
            pad = (inside[0].start - block[0].start, block[0].stop - inside[0].stop)
            mask = np.pad(mask, (pad, (0, 0), (0, 0)))
            labels = self._cut(mask, block, index)
            labels = labels[pad[0] : labels.shape[0] - pad[1]]
            view = out[local]
            view[labels > 0] = labels[labels > 0]
        self._scratch[start:stop] = out

    def _around(self, index: int) -> Slices:
        table = self._components.objects
        box = tuple(slice(a - 1, b + 1) for a, b in zip(table.start[index], table.stop[index], strict=True))
        return self._grid.clip(box)

    def _cut(self, mask: np.ndarray, block: Slices, index: int) -> np.ndarray:
        """Labels of one component, numbered on from those before it."""
        seeds = self._seeds(block) if self._seeds else None
        labels = np.asarray(self._step(mask, self._grid.voxel_size_nm, seeds))
        statistics = cc3d.statistics(labels, no_slice_conversion=True)
        boxes = statistics["bounding_boxes"][1:].astype(np.int64)
        corner = np.array([s.start for s in block])
        starts, stops = boxes[:, 0::2] + corner, boxes[:, 1::2] + 1 + corner
        sizes = np.asarray(statistics["voxel_counts"][1:], np.int64)
        peak = self._components.objects.peak_probability[index]
        self._tables.append(
            Objects(
                sizes,
                starts,
                stops,
                ((starts == 0) | (stops == self._grid.shape)).any(axis=1),
                np.full(len(sizes), peak, np.float32),
                self._grid.voxel_volume_nm3,
            )
        )
        numbered = np.where(labels > 0, labels + np.uint32(self._count), 0).astype(np.uint32)
        self._count += len(sizes)
        return numbered

    def slab(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self._scratch[start:stop])


def _concatenated(tables: list[Objects], voxel_volume_nm3: float) -> Objects:
    if not tables:
        none = np.zeros((0, 3), np.int64)
        return Objects(none[:, 0], none, none, np.zeros(0, bool), np.zeros(0, np.float32), voxel_volume_nm3)
    columns = ("size_voxels", "start", "stop", "touches_border", "peak_probability")
    joined = (np.concatenate([getattr(table, column) for table in tables]) for column in columns)
    return Objects(*joined, voxel_volume_nm3)
