"""Cutting components into objects one by one, those too large to hold on a coarser grid."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cc3d
import numpy as np

from ensemble.core.box import Slices
from ensemble.core.grid import Grid
from ensemble.core.tiling import CHUNK, slabs
from ensemble.methods.components import LabelledObjects, ReadBlock
from ensemble.methods.method_table import Step
from ensemble.methods.objects import ObjectTable

_BYTES_PER_VOXEL = 20
_SMALL_VOXELS = 1 << 14
"""Components of fewer voxels are cut by one thread."""


@dataclass(frozen=True)
class _Cut:
    """A component's labels on its box, numbered from 1, and the table of its objects."""

    block: Slices
    labels: np.ndarray
    objects: ObjectTable


@dataclass(frozen=True)
class _Slab:
    """A slab in memory while its components are cut: their labels, and the objects' so far, on ``box``."""

    box: Slices
    ids: np.ndarray
    out: np.ndarray


class Split:
    """Every component cut into its objects by a labelling step, kept in a scratch array.

    26-connected components never touch, so each is cut alone, inside its box and one voxel around it: the
    distances there are those of the whole volume. A component whose box would take more than ``memory_bytes``
    is cut on voxels a power of two as large, which ``say`` is told. ``scratch`` is an array-like (z, y, x) of
    uint32 zeros. The result does not depend on ``workers``.
    """

    objects: ObjectTable

    def __init__(
        self,
        components: LabelledObjects,
        grid: Grid,
        step: Step,
        read: ReadBlock,
        scratch: np.ndarray,
        seeds: ReadBlock | None = None,
        *,
        workers: int = 1,
        say: Callable[[str], None] = lambda line: None,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self._components, self._grid, self._step = components, grid, step
        self._read, self._seeds, self._scratch = read, seeds, scratch
        self._say = say
        self._most_voxels = memory_bytes // step.method.traits.get("bytes_per_voxel", _BYTES_PER_VOXEL)
        self._tables: list[ObjectTable] = []
        self._count = 0
        self._held: dict[int, _Slab] = {}
        self._bounds = slabs(grid.shape[0])
        self._whole = self._undivided()
        self._number_of_whole = np.zeros(len(components.objects) + 1, np.uint32)
        first, last = self._slabs_of_components()
        with ThreadPoolExecutor(workers) as pool:
            for number in range(len(self._bounds)):
                here = first == number
                self._number_whole(np.flatnonzero(here & self._whole))
                open_ = [int(i) for i in np.flatnonzero(here & ~self._whole)]
                near = [i for i in open_ if last[i] <= number + 1 and self._factor(self._around(i)) == 1]
                if near or (self._whole & (first <= number) & (last >= number)).any():
                    self._hold(number)
                for index in sorted(set(open_) - set(near)):
                    self._cut_one(index)
                self._cut_near(near, number, pool)
                self._let_go(number)
        self.objects = _concatenated(self._tables, grid.voxel_volume_nm3)

    def _slabs_of_components(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last slab of each."""
        table = self._components.objects
        return table.start[:, 0] // CHUNK[0], (table.stop[:, 0] - 1) // CHUNK[0]

    # -- slabs in memory

    def _hold(self, number: int) -> _Slab | None:
        """The slab; None where there is nothing."""
        if number not in self._held:
            touched = self._components.touched(*self._bounds[number])
            if touched is None:
                return None
            box = tuple(
                slice(s.start // c * c, min(-(-s.stop // c) * c, n))
                for s, c, n in zip(touched, CHUNK, self._grid.shape, strict=True)
            )
            self._held[number] = _Slab(box, self._components.read(box), np.array(self._scratch[box]))
        return self._held[number]

    def _let_go(self, number: int) -> None:
        """Write a slab, with the components in it that are one object each: all those have their numbers now."""
        slab = self._held.pop(number, None)
        if slab is not None:
            whole = np.take(self._number_of_whole, slab.ids)
            np.copyto(slab.out, whole, where=whole > 0)
            self._scratch[slab.box] = slab.out

    def _put(self, part: Slices, labels: np.ndarray) -> None:
        """Set the labels of a part of one slab, where they are not 0."""
        slab = self._held.get(part[0].start // CHUNK[0])
        if slab is None:
            self._scratch[part] = np.where(labels > 0, labels, np.asarray(self._scratch[part]))
            return
        part, inside = _common(part, slab.box)
        np.copyto(slab.out[part], labels[inside], where=labels[inside] > 0)

    # -- components that are one object

    def _undivided(self) -> np.ndarray:
        """The components that are too small to hold two objects."""
        table = self._components.objects
        reach = self._step.trait("undivided_below_nm", voxel_size_nm=self._grid.voxel_size_nm)
        if reach is None:
            return np.zeros(len(table), bool)
        return ((table.stop - table.start - 1) * self._grid.voxel_size_nm < reach).all(axis=1)

    def _number_whole(self, indices: np.ndarray) -> None:
        table = self._components.objects
        self._number_of_whole[indices + 1] = np.arange(len(indices), dtype=np.uint32) + np.uint32(self._count + 1)
        self._count += len(indices)
        self._tables.append(table.where(indices))

    # -- components that are cut as they are

    def _cut_one(self, index: int) -> None:
        """Cut a component that does not lie in two slabs, or is large."""
        block = self._around(index)
        factor = self._factor(block)
        if factor > 1:
            self._cut_coarsely(index, block, factor)
            return
        cut = self._cut(self._alone(index, block), block, index)
        numbers = self._numbers(cut)
        for part in self._parts(block):
            self._put(part, np.take(numbers, cut.labels[_inside(part, block)]))

    def _cut_near(self, indices: list[int], number: int, pool: ThreadPoolExecutor) -> None:
        """Cut components that begin in a slab and end in it or the next."""
        group: list[int] = []
        voxels = 0
        for index in indices:
            block = self._around(index)
            if block[0].stop > self._bounds[number][1] and number + 1 < len(self._bounds):
                self._hold(number + 1)
            group.append(index)
            voxels += math.prod(s.stop - s.start for s in block)
            if voxels > self._most_voxels // 2:
                self._cut_group(group, voxels, pool)
                group, voxels = [], 0
        self._cut_group(group, voxels, pool)

    def _cut_group(self, group: list[int], voxels: int, pool: ThreadPoolExecutor) -> None:
        # of small ones most is Python, which threads would only wait for each other to run
        spread = map if voxels < _SMALL_VOXELS * len(group) else pool.map
        for cut in spread(self._cut_held, group):
            numbers = self._numbers(cut)
            for part in self._parts(cut.block):
                self._put(part, np.take(numbers, cut.labels[_inside(part, cut.block)]))

    def _cut_held(self, index: int) -> _Cut:
        block = self._around(index)
        # what is not held of the box, the plane around the component, is background
        mask = np.zeros([s.stop - s.start for s in block], bool)
        for part in self._parts(block):
            slab = self._held.get(part[0].start // CHUNK[0])
            if slab is not None:
                there, inside = _common(part, slab.box)
                mask[_inside(part, block)][inside] = slab.ids[there] == index + 1
        return self._cut(mask, block, index)

    def _around(self, index: int) -> Slices:
        table = self._components.objects
        box = tuple(slice(int(a) - 1, int(b) + 1) for a, b in zip(table.start[index], table.stop[index], strict=True))
        return self._grid.clip(box)

    def _parts(self, block: Slices) -> Iterator[Slices]:
        """The block, slab by slab."""
        for start, stop in slabs(self._grid.shape[0]):
            z = slice(max(start, block[0].start), min(stop, block[0].stop))
            if z.stop > z.start:
                yield (z, *block[1:])

    def _alone(self, index: int, block: Slices) -> np.ndarray:
        """The component's voxels in its box."""
        mask = cc3d.connected_components(
            self._read(block).view(np.uint8), connectivity=26, out_dtype=np.uint32, binary_image=True
        )
        return mask == mask[self._a_voxel(index, block)]

    def _a_voxel(self, index: int, block: Slices) -> tuple[int, ...]:
        """Where in its box the component is, in the first plane it has."""
        start, stop = (bound[index] for bound in (self._components.objects.start, self._components.objects.stop))
        plane = (
            slice(int(start[0]), int(start[0]) + 1),
            *(slice(int(a), int(b)) for a, b in zip(start[1:], stop[1:], strict=True)),
        )
        where = np.unravel_index(
            int(np.argmax(self._components.read(plane) == index + 1)), [s.stop - s.start for s in plane]
        )
        return tuple(int(w) + p.start - b.start for w, p, b in zip(where, plane, block, strict=True))

    def _cut(self, mask: np.ndarray, block: Slices, index: int) -> _Cut:
        seeds = self._seeds(block) if self._seeds else None
        labels = np.asarray(self._step(mask, self._grid.voxel_size_nm, seeds))
        return _Cut(block, labels, self._table(labels, [s.start for s in block], 1, index, None))

    def _table(
        self, labels: np.ndarray, corner: list[int], factor: int, index: int, sizes: np.ndarray | None
    ) -> ObjectTable:
        statistics = cc3d.statistics(labels, no_slice_conversion=True)
        boxes = statistics["bounding_boxes"][1:].astype(np.int64)
        table = self._components.objects
        starts = np.maximum(boxes[:, 0::2] * factor + corner, table.start[index])
        stops = np.minimum((boxes[:, 1::2] + 1) * factor + corner, table.stop[index])
        sizes = np.asarray(statistics["voxel_counts"][1:], np.int64) if sizes is None else sizes
        border = ((starts == 0) | (stops == self._grid.shape)).any(axis=1)
        peak = np.full(len(sizes), table.peak_probability[index], np.float32)
        return ObjectTable(sizes, starts, stops, border, peak, self._grid.voxel_volume_nm3)

    def _numbers(self, cut: _Cut) -> np.ndarray:
        """What its labels are called in the crop, numbered on from those before; 0 stays."""
        self._tables.append(cut.objects)
        offset, self._count = self._count, self._count + len(cut.objects)
        numbers = np.arange(len(cut.objects) + 1, dtype=np.uint32) + np.uint32(offset)
        numbers[0] = 0
        return numbers

    # -- components too large to hold

    def _factor(self, block: Slices) -> int:
        """How much larger voxels must be for the box to fit, a power of two."""
        factor, shape = 1, [s.stop - s.start for s in block]
        while math.prod(-(-n // factor) + 1 for n in shape) > self._most_voxels and factor < max(shape):
            factor *= 2
        return factor if math.prod(shape) > self._most_voxels else 1

    def _cut_coarsely(self, index: int, block: Slices, factor: int) -> None:
        """Cut the component as it is on larger voxels, those that hold any of it."""
        size = int(self._components.objects.size_voxels[index])
        self._say(
            f"a component of {size:,} voxels is too large for the memory and is cut on {factor}x larger voxels "
            "(--memory gives more)"
        )
        corner = [s.start // factor * factor for s in block]
        shape = [-(-(s.stop - c) // factor) for s, c in zip(block, corner, strict=True)]
        mask = np.zeros(shape, bool)
        seeds = None if self._seeds is None else np.zeros(shape, np.int64)
        for part in self._parts(block):
            place, start = _coarse_place(part, corner, factor)
            mask[place] |= _largest(self._components.read(part) == index + 1, start, factor)
            if seeds is not None:
                found = np.asarray(self._seeds(part)).astype(np.int64)
                np.maximum(seeds[place], _largest(found, start, factor), out=seeds[place])
        voxel_nm = tuple(v * factor for v in self._grid.voxel_size_nm)
        labels = np.asarray(_coarser(self._step, factor)(mask, voxel_nm, seeds))
        sizes = np.zeros(int(labels.max()) + 1, np.int64)
        offset = self._count
        for part in self._parts(block):
            place, start = _coarse_place(part, corner, factor)
            fine = labels[place]
            for axis in range(3):
                fine = np.repeat(fine, factor, axis=axis)
            fine = fine[tuple(slice(s, s + p.stop - p.start) for s, p in zip(start, part, strict=True))]
            fine = np.where(self._components.read(part) == index + 1, fine, 0)
            sizes += np.bincount(fine.reshape(-1), minlength=len(sizes))
            self._put(part, np.where(fine > 0, fine + np.uint32(offset), 0).astype(np.uint32))
        self._tables.append(self._table(labels, corner, factor, index, sizes[1:]))
        self._count += len(sizes) - 1

    # -- as any other labelled crop

    def touched(self, start: int, stop: int) -> Slices | None:
        return self._components.touched(start, stop)

    def read(self, block: Slices) -> np.ndarray:
        return np.asarray(self._scratch[block])


def _inside(block: Slices, box: Slices) -> Slices:
    return tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(block, box, strict=True))


def _common(part: Slices, box: Slices) -> tuple[Slices, Slices]:
    """What a part and a box share: (its place in the box, its place in the part)."""
    both = tuple(slice(max(p.start, b.start), min(p.stop, b.stop)) for p, b in zip(part, box, strict=True))
    return _inside(both, box), _inside(both, part)


def _coarse_place(part: Slices, corner: list[int], factor: int) -> tuple[Slices, list[int]]:
    """The coarse voxels under a part, and where in the first of them the part starts."""
    place = tuple(slice((s.start - c) // factor, -(-(s.stop - c) // factor)) for s, c in zip(part, corner, strict=True))
    return place, [(s.start - c) % factor for s, c in zip(part, corner, strict=True)]


def _largest(values: np.ndarray, start: list[int], factor: int) -> np.ndarray:
    """The largest value of each coarse voxel; the first voxel lies ``start`` into the first of them."""
    for axis, skip in enumerate(start):
        edges = np.arange(0, values.shape[axis] + skip, factor) - skip
        values = np.maximum.reduceat(values, np.maximum(edges, 0), axis=axis)
    return values


def _coarser(step: Step, factor: int) -> Step:
    """The same step where lengths in voxels are in larger voxels."""
    voxels = step.parameters.get("min_distance_voxels")
    if voxels is None:
        return step
    return Step(step.method, {**step.parameters, "min_distance_voxels": max(1, round(voxels / factor))})


def _concatenated(tables: list[ObjectTable], voxel_volume_nm3: float) -> ObjectTable:
    if not tables:
        none = np.zeros((0, 3), np.int64)
        return ObjectTable(none[:, 0], none, none, np.zeros(0, bool), np.zeros(0, np.float32), voxel_volume_nm3)
    columns = ("size_voxels", "start", "stop", "touches_border", "peak_probability")
    joined = (np.concatenate([getattr(table, column) for table in tables]) for column in columns)
    return ObjectTable(*joined, voxel_volume_nm3)
