"""Cutting components into objects one by one, those too large to hold on a coarser grid."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from ensemble.core import CHUNK, Box, BoxArray, Grid, Slices, VoxelsZYX, nm_zyx, slabs, zyx
from ensemble.methods.components import LabelledObjects, ReadBlock, renumbered
from ensemble.methods.method_table import Step
from ensemble.methods.objects import ObjectTable

_SMALL_VOXELS = 1 << 14
"""Components of fewer voxels are cut by one thread."""

Labels = NDArray[np.uint32]


@dataclass(frozen=True)
class SplitInput:
    """What is to be cut: components of a mask (``read``) by a labelling step, into ``scratch`` (uint32 zeros).

    ``seeds`` gives what the step starts from, where that is another class.
    """

    components: LabelledObjects
    grid: Grid
    step: Step
    read: ReadBlock
    scratch: BoxArray
    seeds: ReadBlock | None = None


class NeedsMemory(Exception):
    """A component takes so many bytes to be cut, more than were lent."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(needed_bytes)
        self.needed_bytes = needed_bytes


class Split:
    """Every component cut into its objects, kept in a scratch array; made by ``Split.of``."""

    def __init__(self, components: LabelledObjects, scratch: BoxArray, objects: ObjectTable) -> None:
        self._components, self._scratch, self._objects = components, scratch, objects

    @classmethod
    def of(
        cls,
        given: SplitInput,
        *,
        workers: int = 1,
        say: Callable[[str], None] = lambda line: None,
        memory_bytes: int = 2 << 30,
        lent_bytes: int | None = None,
    ) -> "Split":
        """Cut every component.

        26-connected components never touch, so each is cut alone, inside its box and one voxel around it: the
        distances there are those of the whole volume. A component whose box would take more than
        ``memory_bytes`` is cut on voxels a power of two as large, which ``say`` is told. The result does not
        depend on ``workers``. Raises NeedsMemory where one takes more than ``lent_bytes``, if they are fewer.
        """
        cutter = _Cutter(given, say, memory_bytes, memory_bytes if lent_bytes is None else lent_bytes)
        return cls(given.components, given.scratch, cutter.run(workers))

    @property
    def objects(self) -> ObjectTable:
        return self._objects

    def touched(self, slab: Box) -> Box | None:
        return self._components.touched(slab)

    def read(self, box: Box) -> Labels:
        return np.asarray(self._scratch[box])


@dataclass(frozen=True)
class _Cut:
    """A component's labels on its box, numbered from 1, and the table of its objects."""

    box: Box
    labels: Labels
    objects: ObjectTable


@dataclass(frozen=True)
class _Slab:
    """A slab in memory while its components are cut: their labels, and the objects' so far, on ``box``."""

    box: Box
    ids: Labels
    out: Labels


class _Cutter:
    """Goes through the slabs once, cutting what begins in each."""

    def __init__(self, given: SplitInput, say: Callable[[str], None], memory_bytes: int, lent_bytes: int) -> None:
        self._components, self._grid, self._step = given.components, given.grid, given.step
        self._read, self._seeds, self._scratch = given.read, given.seeds, given.scratch
        self._say = say
        each_bytes = given.step.method.traits.bytes_per_voxel
        self._most_voxels, self._lent_voxels = (n // each_bytes for n in (memory_bytes, lent_bytes))
        self._tables: list[ObjectTable] = []
        self._count = 0
        self._slabs_held: dict[int, _Slab] = {}
        self._slabs = slabs(given.grid.shape)
        self._whole = self._undivided()
        largest = min(self._largest_box(), self._most_voxels)
        if largest > self._lent_voxels:
            raise NeedsMemory(largest * each_bytes)
        self._number_of_whole = np.zeros(len(given.components.objects) + 1, np.uint32)

    def run(self, workers: int) -> ObjectTable:
        """Every object's row, numbered as in the scratch array."""
        first, last = self._slabs_of_components()
        with ThreadPoolExecutor(workers) as pool:
            for number in range(len(self._slabs)):
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
        return ObjectTable.joined(self._tables, self._grid.voxel_volume_nm3)

    def _slabs_of_components(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last slab of each."""
        table = self._components.objects
        return table.start[:, 0] // CHUNK[0], (table.stop[:, 0] - 1) // CHUNK[0]

    # -- slabs in memory

    def _hold(self, number: int) -> _Slab | None:
        """The slab; None where there is nothing."""
        if number not in self._slabs_held:
            touched = self._components.touched(self._slabs[number])
            if touched is None:
                return None
            box = touched.whole_chunks(CHUNK).intersect(self._grid.box)
            self._slabs_held[number] = _Slab(box, self._components.read(box), np.array(self._scratch[box]))
        return self._slabs_held[number]

    def _let_go(self, number: int) -> None:
        """Write a slab, with the components in it that are one object each: all those have their numbers now."""
        slab = self._slabs_held.pop(number, None)
        if slab is not None:
            whole = renumbered(slab.ids, self._number_of_whole)
            np.copyto(slab.out, whole, where=whole > 0)
            self._scratch[slab.box] = slab.out

    def _put(self, part: Box, labels: Labels) -> None:
        """Set the labels of a part of one slab, where they are not 0."""
        slab = self._slabs_held.get(part.start[0] // CHUNK[0])
        if slab is None:
            self._scratch[part] = np.where(labels > 0, labels, np.asarray(self._scratch[part]))
            return
        both = part.intersect(slab.box)
        new = labels[both.relative_to(part).slices]
        np.copyto(slab.out[both.relative_to(slab.box).slices], new, where=new > 0)

    # -- components that are one object

    def _undivided(self) -> NDArray[np.bool_]:
        """The components that are too small to hold two objects."""
        table = self._components.objects
        reach = self._step.undivided_below_nm(self._grid.voxel_size_nm)
        if reach is None:
            return np.zeros(len(table), bool)
        small = (table.stop - table.start - 1) * self._grid.voxel_size_nm < reach
        return np.asarray(small.all(axis=1))

    def _largest_box(self) -> int:
        """Voxels of the largest box around a component that is to be cut."""
        table = self._components.objects
        shapes = (table.stop - table.start + 2)[~self._whole]
        return int(shapes.prod(axis=1).max(initial=0))

    def _number_whole(self, indices: NDArray[np.int64]) -> None:
        table = self._components.objects
        self._number_of_whole[indices + 1] = np.arange(len(indices), dtype=np.uint32) + np.uint32(self._count + 1)
        self._count += len(indices)
        self._tables.append(table.where(indices))

    # -- components that are cut as they are

    def _cut_one(self, index: int) -> None:
        """Cut a component that does not lie in two slabs, or is large."""
        box = self._around(index)
        factor = self._factor(box)
        if factor > 1:
            self._cut_coarsely(index, box, factor)
            return
        self._put_all(self._cut(self._alone(index, box), box, index))

    def _put_all(self, cut: _Cut) -> None:
        numbers = self._numbers(cut)
        for part in self._parts(cut.box):
            self._put(part, renumbered(cut.labels[part.relative_to(cut.box).slices], numbers))

    def _cut_near(self, indices: list[int], number: int, pool: ThreadPoolExecutor) -> None:
        """Cut components that begin in a slab and end in it or the next."""
        group: list[int] = []
        voxels = 0
        for index in indices:
            box = self._around(index)
            if box.stop[0] > self._slabs[number].stop[0] and number + 1 < len(self._slabs):
                self._hold(number + 1)
            group.append(index)
            voxels += box.size
            if voxels > self._lent_voxels // 2:
                self._cut_group(group, voxels, pool)
                group, voxels = [], 0
        self._cut_group(group, voxels, pool)

    def _cut_group(self, group: list[int], voxels: int, pool: ThreadPoolExecutor) -> None:
        # of small ones most is Python, which threads would only wait for each other to run
        together = voxels >= _SMALL_VOXELS * len(group)
        for cut in pool.map(self._cut_held, group) if together else map(self._cut_held, group):
            self._put_all(cut)

    def _cut_held(self, index: int) -> _Cut:
        box = self._around(index)
        # what is not held of the box, the plane around the component, is background
        mask = np.zeros(box.shape, bool)
        for part in self._parts(box):
            slab = self._slabs_held.get(part.start[0] // CHUNK[0])
            if slab is not None:
                both = part.intersect(slab.box)
                mask[both.relative_to(box).slices] = slab.ids[both.relative_to(slab.box).slices] == index + 1
        return self._cut(mask, box, index)

    def _around(self, index: int) -> Box:
        return self._components.objects.box(index).grown(1).intersect(self._grid.box)

    def _parts(self, box: Box) -> Iterator[Box]:
        """The box, slab by slab."""
        for slab in self._slabs[box.start[0] // CHUNK[0] :]:
            part = box.intersect(slab)
            if not part.size:
                return
            yield part

    def _alone(self, index: int, box: Box) -> NDArray[np.bool_]:
        """The component's voxels in its box."""
        labels = cc3d.connected_components(
            self._read(box).view(np.uint8), connectivity=26, out_dtype=np.uint32, binary_image=True
        )
        return np.asarray(labels == labels[self._a_voxel(index, box)])

    def _a_voxel(self, index: int, box: Box) -> VoxelsZYX:
        """Where in its box the component is, in the first plane it has."""
        whole = self._components.objects.box(index)
        plane = whole.with_axis(0, whole.start[0], whole.start[0] + 1)
        first = int(np.argmax(self._components.read(plane) == index + 1))
        place = zyx(int(i) for i in np.unravel_index(first, plane.shape))
        return Box.at(place, (1, 1, 1)).shifted(plane.relative_to(box).start).start

    def _cut(self, mask: NDArray[np.bool_], box: Box, index: int) -> _Cut:
        seeds = self._seeds(box) if self._seeds else None
        labels = np.asarray(self._step(mask, self._grid.voxel_size_nm, seeds))
        return _Cut(box, labels, self._table(labels, box.start, 1, index, None))

    def _table(
        self, labels: Labels, corner: VoxelsZYX, factor: int, index: int, sizes: NDArray[np.int64] | None
    ) -> ObjectTable:
        statistics = cc3d.statistics(labels, no_slice_conversion=True)
        boxes = np.asarray(statistics["bounding_boxes"], np.int64)[1:]
        table = self._components.objects
        starts = np.maximum(boxes[:, 0::2] * factor + corner, table.start[index])
        stops = np.minimum((boxes[:, 1::2] + 1) * factor + corner, table.stop[index])
        sizes = np.asarray(statistics["voxel_counts"][1:], np.int64) if sizes is None else sizes
        border = ((starts == 0) | (stops == self._grid.shape)).any(axis=1)
        peak = np.full(len(sizes), table.peak_probability[index], np.float32)
        return ObjectTable(sizes, starts, stops, border, peak, self._grid.voxel_volume_nm3)

    def _numbers(self, cut: _Cut) -> Labels:
        """What its labels are called in the crop, numbered on from those before; 0 stays."""
        self._tables.append(cut.objects)
        offset, self._count = self._count, self._count + len(cut.objects)
        numbers = np.arange(len(cut.objects) + 1, dtype=np.uint32) + np.uint32(offset)
        numbers[0] = 0
        return numbers

    # -- components too large to hold

    def _factor(self, box: Box) -> int:
        """How much larger voxels must be for the box to fit, a power of two."""
        factor, shape = 1, box.shape
        while math.prod(-(-n // factor) + 1 for n in shape) > self._most_voxels and factor < max(shape):
            factor *= 2
        return factor if math.prod(shape) > self._most_voxels else 1

    def _cut_coarsely(self, index: int, box: Box, factor: int) -> None:
        """Cut the component as it is on larger voxels, those that hold any of it."""
        size = int(self._components.objects.size_voxels[index])
        self._say(
            f"a component of {size:,} voxels is too large for the memory and is cut on {factor}x larger voxels "
            "(--memory gives more)"
        )
        voxels = (factor,) * 3
        coarse = box.to_chunks(voxels)
        corner = coarse.of_chunks(voxels).start
        mask = np.zeros(coarse.shape, bool)
        seeds = None if self._seeds is None else np.zeros(coarse.shape, np.int64)
        for part in self._parts(box):
            place, start = _coarse_place(part, coarse, factor)
            mask[place] |= _largest(self._components.read(part) == index + 1, start, factor)
            if self._seeds is not None and seeds is not None:
                largest = _largest(np.asarray(self._seeds(part)).astype(np.int64), start, factor)
                np.maximum(seeds[place], largest, out=seeds[place])
        voxel_nm = nm_zyx(v * factor for v in self._grid.voxel_size_nm)
        labels = np.asarray(_coarser(self._step, factor)(mask, voxel_nm, seeds))
        sizes = np.zeros(int(labels.max()) + 1, np.int64)
        offset = self._count
        for part in self._parts(box):
            place, start = _coarse_place(part, coarse, factor)
            fine = labels[place]
            for axis in range(3):
                fine = np.repeat(fine, factor, axis=axis)
            fine = fine[Box.at(start, part.shape).slices]
            fine = np.where(self._components.read(part) == index + 1, fine, 0)
            sizes += np.bincount(fine.reshape(-1), minlength=len(sizes))
            self._put(part, np.where(fine > 0, fine + np.uint32(offset), 0).astype(np.uint32))
        self._tables.append(self._table(labels, corner, factor, index, sizes[1:]))
        self._count += len(sizes) - 1


def _coarse_place(part: Box, coarse: Box, factor: int) -> tuple[Slices, VoxelsZYX]:
    """Where in the coarse box the voxels under a part are, and where in the first of them the part starts."""
    under = part.to_chunks((factor,) * 3)
    return under.relative_to(coarse).slices, part.relative_to(under.of_chunks((factor,) * 3)).start


def _largest(values: NDArray[Any], start: VoxelsZYX, factor: int) -> NDArray[Any]:
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
