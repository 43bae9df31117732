"""EM as far as it is really there; beyond it, the nearest tissue is mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ensemble.core.box import Slices
from ensemble.core.grid import Grid
from ensemble.core.tiling import reflect
from ensemble.storage.volume import Volume
from ensemble.support.errors import VolumeError


@dataclass(frozen=True)
class Tissue:
    """A level of EM as far as it is really there.

    ``box`` holds the tissue; beyond it, and in chunks inside it that were never written, the nearest tissue
    is mirrored. With ``absent_is_zero`` the box is the whole array and unwritten chunks are black.
    """

    volume: Volume
    box: Slices
    absent_is_zero: bool = False

    def absent_chunks(self) -> int:
        """How many chunks of the box were never written."""
        ranges = [range(s.start // c, -(-s.stop // c)) for s, c in zip(self.box, self.volume.chunks, strict=True)]
        return 0 if self.absent_is_zero else int((~_presence(self.volume, ranges)).sum())

    def warnings(self, target: Grid) -> list[str]:
        """What a person should know of the EM under a target, a line each."""
        found = []
        over = self.volume.grid.slices_over(target)
        for s, box, letter in zip(over, self.box, "zyx", strict=True):
            short = max(box.start - s.start, s.stop - box.stop)
            if short > 0:
                found.append(
                    f"the EM that is there ends {short} voxels inside the crop along {letter}; it is mirrored there"
                )
        absent = self.absent_chunks()
        if absent:
            found.append(f"{absent} chunks of EM were never written; mirrored from their neighbours")
        return found

    def read(self, block: Slices) -> np.ndarray:
        """The block, whose bounds may lie outside the box, dtype kept."""
        inner, index = [], []
        for s, box in zip(block, self.box, strict=True):
            along = reflect(np.arange(s.start, s.stop) - box.start, box.stop - box.start) + box.start
            inner.append(slice(int(along.min()), int(along.max()) + 1))
            index.append(along - along.min())
        data = self._inside(tuple(inner))
        for axis, along in enumerate(index):
            if len(along) != data.shape[axis] or (np.diff(along) != 1).any():
                data = np.take(data, along, axis=axis)
        return data

    def _inside(self, block: Slices) -> np.ndarray:
        data = self.volume.read(block)
        if self.absent_is_zero:
            return data
        first = [s.start // c for s, c in zip(block, self.volume.chunks, strict=True)]
        counts = [-(-s.stop // c) - f for s, c, f in zip(block, self.volume.chunks, first, strict=True)]
        present = _presence(self.volume, [range(f, f + n) for f, n in zip(first, counts, strict=True)])
        if present.all():
            return data
        data = data.copy()
        for local in np.argwhere(~present):
            self._fill(data, block, tuple(local + first))
        return data

    def _fill(self, data: np.ndarray, block: Slices, chunk: tuple[int, ...]) -> None:
        """Mirror the nearest chunk that is there into the part of ``data`` under an absent chunk."""
        source = _nearest_present(self.volume, self.box, chunk)
        place, index = [], []
        for axis, s in enumerate(block):
            size, length = self.volume.chunks[axis], self.volume.grid.shape[axis]
            start, stop = max(chunk[axis] * size, s.start), min((chunk[axis] + 1) * size, s.stop)
            low, high = source[axis] * size, min((source[axis] + 1) * size, length)
            place.append(slice(start - s.start, stop - s.start))
            index.append(reflect(np.arange(start, stop) - low, high - low))
        whole = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(source, self.volume.chunks, self.volume.grid.shape, strict=True)
        )
        data[tuple(place)] = self.volume.read(whole)[np.ix_(*index)]


def _presence(volume: Volume, ranges: Sequence[range]) -> np.ndarray:
    out = np.zeros([len(r) for r in ranges], bool)
    for place, chunk in zip(np.ndindex(out.shape), product(*ranges), strict=True):
        out[place] = volume.present(chunk)
    return out


def _nearest_present(volume: Volume, box: Slices, chunk: tuple[int, ...]) -> tuple[int, ...]:
    ranges = [range(s.start // c, -(-s.stop // c)) for s, c in zip(box, volume.chunks, strict=True)]
    present = _presence(volume, ranges)
    nearest = ndimage.distance_transform_edt(~present, return_distances=False, return_indices=True)
    local = tuple(np.clip(i - r.start, 0, len(r) - 1) for i, r in zip(chunk, ranges, strict=True))
    return tuple(int(r.start + i) for r, i in zip(ranges, nearest[(slice(None), *local)], strict=True))


def find_tissue(volume: Volume, core: Slices, wanted: Slices, *, absent_is_zero: bool = False) -> Tissue:
    """The tissue around ``core``, no larger than ``wanted``; bounds may exceed the array.

    The box grows from the core, a layer of chunks at a time, while the layer is there in whole.
    Raises VolumeError when nothing of the core is there.
    """
    grid, chunks = volume.grid, volume.chunks
    inside = grid.clip(core)
    if any(s.stop <= s.start for s in inside):
        raise VolumeError(f"{volume.place}: the crop lies outside the EM; check the manifest's translation")
    if absent_is_zero:
        return Tissue(volume, tuple(slice(0, n) for n in grid.shape), absent_is_zero=True)
    ranges = [range(s.start // c, -(-s.stop // c)) for s, c in zip(inside, chunks, strict=True)]
    present = _presence(volume, ranges)
    if not present.any():
        raise VolumeError(
            f"{volume.place}: none of the crop's EM is there (its chunks were never written); fetch the data, "
            "or say --absent-is-zero where black is real"
        )
    occupied = [np.flatnonzero(present.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    ranges = [range(r.start + o[0], r.start + o[-1] + 1) for r, o in zip(ranges, occupied, strict=True)]
    limits = grid.clip(wanted)
    for axis in range(3):
        ranges[axis] = _grown(volume, ranges, axis, limits[axis])
    box = tuple(
        slice(max(r.start * c, lim.start), min(r.stop * c, lim.stop, n))
        for r, c, n, lim in zip(ranges, chunks, grid.shape, limits, strict=True)
    )
    return Tissue(volume, box)


def _grown(volume: Volume, ranges: list[range], axis: int, limit: slice) -> range:
    size = volume.chunks[axis]
    start, stop = ranges[axis].start, ranges[axis].stop

    def layer_is_there(index: int) -> bool:
        layer = [range(index, index + 1) if a == axis else r for a, r in enumerate(ranges)]
        return bool(_presence(volume, layer).all())

    while start * size > limit.start and layer_is_there(start - 1):
        start -= 1
    while stop * size < limit.stop and layer_is_there(stop):
        stop += 1
    return range(start, stop)
