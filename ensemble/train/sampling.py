"""Which patches a network is shown, and in which view: the seed and the patch's number alone decide."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, VoxelsZYX, patch_starts, zyx
from ensemble.storage import Volume
from ensemble.train.crops import UNKNOWN, AnnotatedCrop, Patch
from ensemble.train.patch_cache import PatchReader
from ensemble.train.spec import TrainingSpec
from ensemble.train.views import draw_view

POSITIONS = 4096
"""Voxels remembered per crop and class."""

Foreground = list[list[tuple[int, NDArray[np.int64]]]]
"""Per class, the crops (by index) that have voxels of it, with a sample of those."""


def positions(crop: AnnotatedCrop, channel: int, seed: int, limit: int = POSITIONS) -> NDArray[np.int64]:
    """A random sample of the voxels of one class, at most ``limit``, as flat indices into the crop's lattice.

    Reads the class's truth once, chunk by chunk, and only chunks that were written.
    """
    rng = np.random.default_rng((seed, channel))
    chosen, keys = np.empty(0, np.int64), np.empty(0)
    for part in crop.truths[channel] or ():
        for box in _written(part):
            local = np.flatnonzero(part.read(box))
            drawn = rng.random(len(local))
            if len(local) > limit:
                first = np.argpartition(drawn, limit)[:limit]
                local, drawn = local[first], drawn[first]
            chosen = np.concatenate([chosen, _on_lattice(crop, part, box, local)])
            keys = np.concatenate([keys, drawn])
            if len(keys) > limit:
                first = np.argpartition(keys, limit)[:limit]
                chosen, keys = chosen[first], keys[first]
    return chosen[np.argsort(keys)]


def _written(part: Volume) -> Iterator[Box]:
    """The chunks that were written, those inside a shard one by one."""
    chunks = part.grid.box.to_chunks(part.chunks)
    for index in np.argwhere(part.present(chunks)):
        chunk = Box.at(index, (1, 1, 1)).of_chunks(part.chunks).intersect(part.grid.box)
        yield from chunk.tiles(part.decoded_chunks)


def _on_lattice(crop: AnnotatedCrop, part: Volume, box: Box, local: NDArray[np.int64]) -> NDArray[np.int64]:
    """The voxels of the lattice nearest to voxels of a box, given by flat index."""
    nearest = []
    for axis, index in enumerate(np.unravel_index(local, box.shape)):
        nm = np.asarray(
            part.grid.origin_nm[axis] + (index + box.start[axis]) * part.grid.voxel_size_nm[axis], np.float64
        )
        position = np.floor(crop.grid.position_voxels(axis, nm) + 0.5).astype(np.int64)
        nearest.append(np.clip(position, 0, crop.grid.shape[axis] - 1))
    return np.asarray(np.ravel_multi_index(tuple(nearest), crop.grid.shape), np.int64)


def index_foreground(
    crops: Sequence[AnnotatedCrop], classes: int, seed: int, report: Callable[[int, int], None]
) -> Foreground:
    """A sample of the voxels of each class.

    ``report`` hears how many crops are done, of how many.
    """
    foreground: Foreground = [[] for _ in range(classes)]
    for number, crop in enumerate(crops):
        for channel in range(classes):
            sample = positions(crop, channel, seed)
            if len(sample):
                foreground[channel].append((number, sample))
        report(number + 1, len(crops))
    return foreground


class PatchSampler:
    """An endless sequence of training patches; patch ``i`` is the same whenever it is asked for."""

    def __init__(self, reader: PatchReader, spec: TrainingSpec, foreground: Foreground) -> None:
        self._reader, self._spec = reader, spec
        self._foreground = [by_crop for by_crop in foreground if by_crop]
        volumes = np.array([math.prod(n * v for n, v in zip(c.grid.shape, c.grid.voxel_size_nm, strict=True))
                            for c in reader.crops])  # fmt: skip
        self._share = volumes / volumes.sum()

    def patch(self, number: int) -> Patch:
        """Patch ``number`` as it lies in the crop, C-contiguous, and the view in which it is shown."""
        rng = np.random.default_rng((self._spec.seed, number))
        if self._foreground and rng.random() < self._spec.foreground_share:
            crop, start = self._around_foreground(rng)
        else:
            crop, start = self._anywhere(rng)
        patch = self._reader.patch(crop, Box.at(start, self._spec.patch_voxels))
        return replace(patch, view=draw_view(self._spec, rng))

    def _anywhere(self, rng: np.random.Generator) -> tuple[int, VoxelsZYX]:
        crop = int(rng.choice(len(self._share), p=self._share))
        ranges = self._reader.crops[crop].starts(self._spec.patch_voxels)
        return crop, zyx(int(rng.integers(low, high + 1)) for low, high in ranges)

    def _around_foreground(self, rng: np.random.Generator) -> tuple[int, VoxelsZYX]:
        """A patch with a voxel of the class in its middle half, as far as the patch stays in the crop."""
        by_crop = self._foreground[rng.integers(len(self._foreground))]
        crop, sample = by_crop[rng.integers(len(by_crop))]
        grid = self._reader.crops[crop].grid
        voxel = np.unravel_index(sample[rng.integers(len(sample))], grid.shape)
        ranges = self._reader.crops[crop].starts(self._spec.patch_voxels)
        start = []
        for v, p, (low, high) in zip(voxel, self._spec.patch_voxels, ranges, strict=True):
            wanted = int(v) - p // 2 + int(rng.integers(-(p // 4), p // 4 + 1))
            start.append(min(max(wanted, low), high))
        return crop, zyx(start)


class ValidationPatches:
    """Crops cut into patches so that each voxel is judged once: patch ``n`` of ``len``, C-contiguous.

    Those of higher numbers are patches that judge nothing, to fill batches with.
    """

    def __init__(self, reader: PatchReader, patch_voxels: VoxelsZYX) -> None:
        self._reader = reader
        self._boxes = [
            (index, box, fresh)
            for index, crop in enumerate(reader.crops)
            for box, fresh in _cover(crop.grid.shape, patch_voxels)
        ]

    def __len__(self) -> int:
        return len(self._boxes)

    def patch(self, number: int) -> Patch:
        """The patch, with what an earlier one judges set to UNKNOWN."""
        index, box, fresh = self._boxes[number % len(self)]
        patch = self._reader.patch(index, box)
        codes = np.full_like(patch.codes, UNKNOWN)
        if number >= len(self):
            return Patch(patch.grey, codes)
        unjudged = (slice(None), *fresh.slices)
        codes[unjudged] = patch.codes[unjudged]
        return Patch(patch.grey, codes)


def _cover(shape: VoxelsZYX, patch_voxels: VoxelsZYX) -> Iterator[tuple[Box, Box]]:
    """Boxes of ``patch_voxels`` over a crop, each with the part of it that no earlier box covers."""
    axes = []
    for n, p in zip(shape, patch_voxels, strict=True):
        starts = [n - p] if n < p else patch_starts(n, p, overlap=0)
        done = [0, *(start + p for start in starts)]
        axes.append([(start, max(0, d - start)) for start, d in zip(starts, done, strict=False)])
    for parts in product(*axes):
        yield Box.at((start for start, _ in parts), patch_voxels), Box(zyx(fresh for _, fresh in parts), patch_voxels)
