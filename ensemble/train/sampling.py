"""Which patches a network is shown, and which way up: the seed and the patch's number alone decide."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.grid import FIT_TOLERANCE
from ensemble.core.tiling import blocks, patch_starts
from ensemble.storage.volume import Volume
from ensemble.train.crops import UNKNOWN, AnnotatedCrop, Patch, PatchReader, Triple
from ensemble.train.spec import TrainingSpec

POSITIONS = 4096
"""Voxels remembered per crop and class."""


def positions(crop: AnnotatedCrop, channel: int, seed: int, limit: int = POSITIONS) -> np.ndarray:
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


def _written(part: Volume) -> Iterator[Slices]:
    whole = tuple(slice(0, n) for n in part.grid.shape)
    inner = part.array.chunks[-3:]
    for chunk in part.chunks_of(whole):
        if part.present(chunk):
            start = [i * c for i, c in zip(chunk, part.chunks, strict=True)]
            stop = [min(a + c, n) for a, c, n in zip(start, part.chunks, part.grid.shape, strict=True)]
            for block in blocks([b - a for a, b in zip(start, stop, strict=True)], inner):
                yield tuple(slice(s.start + a, s.stop + a) for s, a in zip(block, start, strict=True))


def _on_lattice(crop: AnnotatedCrop, part: Volume, box: Slices, local: np.ndarray) -> np.ndarray:
    """The voxels of the lattice nearest to voxels of a box, given by flat index."""
    nearest = []
    for axis, index in enumerate(np.unravel_index(local, [s.stop - s.start for s in box])):
        nm = part.grid.origin_nm[axis] + (index + box[axis].start) * part.grid.voxel_size_nm[axis]
        position = np.floor(crop.grid.position_voxels(axis, nm) + 0.5).astype(np.int64)
        nearest.append(np.clip(position, 0, crop.grid.shape[axis] - 1))
    return np.ravel_multi_index(nearest, crop.grid.shape)


def index_foreground(
    crops: Sequence[AnnotatedCrop], classes: int, seed: int, report: Callable[[int, int], None]
) -> list[list[tuple[int, np.ndarray]]]:
    """Per class, the crops (by index) that have voxels of it, with a sample of those.

    ``report`` hears how many crops are done, of how many.
    """
    found: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(classes)]
    for number, crop in enumerate(crops):
        for channel in range(classes):
            sample = positions(crop, channel, seed)
            if len(sample):
                found[channel].append((number, sample))
        report(number + 1, len(crops))
    return found


class PatchSampler:
    """An endless sequence of training patches; patch ``i`` is the same whenever it is asked for."""

    def __init__(
        self, reader: PatchReader, spec: TrainingSpec, foreground: Sequence[Sequence[tuple[int, np.ndarray]]]
    ) -> None:
        self._reader, self._spec = reader, spec
        self._foreground = [by_crop for by_crop in foreground if by_crop]
        volumes = np.array([math.prod(n * v for n, v in zip(c.grid.shape, c.grid.voxel_size_nm, strict=True))
                            for c in reader.crops])  # fmt: skip
        self._share = volumes / volumes.sum()

    def patch(self, number: int) -> Patch:
        """Patch ``number``, augmented, C-contiguous."""
        rng = np.random.default_rng((self._spec.seed, number))
        if self._foreground and rng.random() < self._spec.foreground_share:
            crop, start = self._around_foreground(rng)
        else:
            crop, start = self._anywhere(rng)
        box = tuple(slice(a, a + p) for a, p in zip(start, self._spec.patch_voxels, strict=True))
        return augment(self._reader.patch(crop, box), self._spec, rng)

    def _anywhere(self, rng: np.random.Generator) -> tuple[int, Triple]:
        crop = int(rng.choice(len(self._share), p=self._share))
        ranges = self._reader.crops[crop].starts(self._spec.patch_voxels)
        return crop, tuple(int(rng.integers(low, high + 1)) for low, high in ranges)

    def _around_foreground(self, rng: np.random.Generator) -> tuple[int, Triple]:
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
        return crop, tuple(start)


def augment(patch: Patch, spec: TrainingSpec, rng: np.random.Generator) -> Patch:
    """The patch as another view of the same kind of tissue, by the steps that the spec lists."""
    grey, codes = patch.grey, patch.codes
    planes = _square_planes(spec)
    if "mirror" in spec.augment:
        axes = [axis for axis in (-3, -2, -1) if rng.random() < 0.5]
        grey, codes = np.flip(grey, axes), np.flip(codes, axes)
    if "transpose" in spec.augment:
        for a, b in planes:
            if rng.random() < 0.5:
                grey, codes = np.swapaxes(grey, a, b), np.swapaxes(codes, a, b)
    if "rotate" in spec.augment and planes:
        plane, turns = planes[rng.integers(len(planes))], int(rng.integers(4))
        grey, codes = np.rot90(grey, turns, plane), np.rot90(codes, turns, plane)
    grey = np.ascontiguousarray(grey)
    if "intensity" in spec.augment:
        grey = _other_exposure(grey, rng)
    return Patch(grey, np.ascontiguousarray(codes))


def _square_planes(spec: TrainingSpec) -> list[tuple[int, int]]:
    """Pairs of axes, counted from the last, along which voxels and patch are equally long."""
    planes = []
    for a, b in combinations(range(3), 2):
        ratio = spec.voxel_size_nm[a] / spec.voxel_size_nm[b]
        if abs(ratio - 1) <= FIT_TOLERANCE and spec.patch_voxels[a] == spec.patch_voxels[b]:
            planes.append((a - 3, b - 3))
    return planes


def _other_exposure(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast, brightness and noise changed by amounts that go with the patch's own contrast."""
    mean, spread = float(grey.mean()), float(grey.std())
    contrast = rng.uniform(0.75, 1.3)
    shift = rng.uniform(-0.3, 0.3) * spread
    noise = rng.uniform(0, 0.15) * spread
    out = (grey - mean) * np.float32(contrast) + np.float32(mean + shift)
    out += np.float32(noise) * rng.standard_normal(grey.shape, dtype=np.float32)
    return out


class ValidationPatches:
    """Crops cut into patches so that each voxel is judged once: patch ``n`` of ``len``, C-contiguous."""

    def __init__(self, reader: PatchReader, patch_voxels: Triple) -> None:
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
        index, box, fresh = self._boxes[number]
        patch = self._reader.patch(index, box)
        codes = np.full_like(patch.codes, UNKNOWN)
        codes[(slice(None), *fresh)] = patch.codes[(slice(None), *fresh)]
        return Patch(patch.grey, codes)


def _cover(shape: Triple, patch_voxels: Triple) -> Iterator[tuple[Slices, Slices]]:
    """Boxes of ``patch_voxels`` over a crop, each with the part of it that no earlier box covers."""
    axes = []
    for n, p in zip(shape, patch_voxels, strict=True):
        starts = [n - p] if n < p else patch_starts(n, p, overlap=0)
        done = [0, *(start + p for start in starts)]
        axes.append([(slice(a, a + p), slice(max(0, d - a), p)) for a, d in zip(starts, done, strict=False)])
    for parts in product(*axes):
        yield tuple(box for box, _ in parts), tuple(fresh for _, fresh in parts)
