"""EM as far as it is really there; beyond it, the nearest tissue is mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ensemble.core import Box, Grid, VoxelsZYX, reflect, zyx
from ensemble.storage.volume import Volume
from ensemble.support import VolumeError

MOST = 0.5
"""Share of a crop that EM should cover."""


@dataclass(frozen=True)
class Tissue:
    """A level of EM as far as it is really there.

    ``box`` holds the tissue; beyond it, and in chunks inside it that were never written, the nearest tissue
    is mirrored. With ``absent_is_zero`` the box is the whole array and unwritten chunks are black.
    """

    volume: Volume
    box: Box
    absent_is_zero: bool = False

    def absent_chunks(self) -> int:
        """How many chunks of the box were never written."""
        if self.absent_is_zero:
            return 0
        return int((~self.volume.present(self.box.to_chunks(self.volume.chunks))).sum())

    def warnings(self, target: Grid) -> list[str]:
        """What a person should know of the EM under a target, a line each."""
        lines = [self.volume.doubt] if self.volume.doubt else []
        over = self.volume.grid.box_over(target)
        share = over.intersect(self.box).size / over.size
        if share < MOST:
            lines.append(f"only {share:.1%} of the crop lies in the EM that is there; is its translation right?")
        for axis, letter in enumerate("zyx"):
            short = max(self.box.start[axis] - over.start[axis], over.stop[axis] - self.box.stop[axis])
            if short > 0:
                lines.append(
                    f"the EM that is there ends {short} voxels inside the crop along {letter}; it is mirrored there"
                )
        absent = self.absent_chunks()
        if absent:
            lines.append(f"{absent} chunks of EM were never written; mirrored from their neighbours")
        return lines

    def read(self, box: Box) -> NDArray[Any]:
        """The voxels of a box, whose bounds may lie outside the tissue, dtype kept."""
        places, inner = self._mirrored(box)
        data = self._inside(inner)
        for axis, place in enumerate(places):
            along = place - inner.start[axis]
            if len(along) != data.shape[axis] or (np.diff(along) != 1).any():
                data = np.take(data, along, axis=axis)
        return data

    def looked_at(self, box: Box) -> Box:
        """All voxels on which those of a box, or of any in it, depend.

        Where a chunk that is not there is mirrored from others these are the whole tissue: any may be the nearest.
        """
        return self._mirrored(box)[1] if self.absent_is_zero else self.box

    def _mirrored(self, box: Box) -> tuple[list[NDArray[Any]], Box]:
        """Along each axis where the voxels of a box are read, mirrored into the tissue; and the box that holds them."""
        places = []
        for axis in range(3):
            first, end = self.box.start[axis], self.box.stop[axis]
            places.append(reflect(np.array(box.along(axis)) - first, end - first) + first)
        return places, Box(zyx(int(p.min()) for p in places), zyx(int(p.max()) + 1 for p in places))

    def _inside(self, box: Box) -> NDArray[Any]:
        data = self.volume.read(box)
        if self.absent_is_zero:
            return data
        chunks = box.to_chunks(self.volume.chunks)
        present = self.volume.present(chunks)
        if present.all():
            return data
        data = data.copy()
        for index in np.argwhere(~present):
            self._fill(data, box, zyx(index + chunks.start))
        return data

    def _fill(self, data: NDArray[Any], box: Box, chunk: VoxelsZYX) -> None:
        """Mirror the nearest chunk that is there into the part of ``data`` under an absent chunk."""
        absent = _chunk(self.volume, chunk)
        source = _chunk(self.volume, _nearest_present(self.volume, self.box, chunk)).intersect(self.volume.grid.box)
        part = absent.intersect(box)
        index = [reflect(np.array(part.along(axis)) - source.start[axis], source.shape[axis]) for axis in range(3)]
        data[part.relative_to(box).slices] = self.volume.read(source)[np.ix_(*index)]


def _chunk(volume: Volume, index: Sequence[int]) -> Box:
    """The voxels of a chunk; they may reach beyond the array."""
    return Box.at(index, (1, 1, 1)).of_chunks(volume.chunks)


def _nearest_present(volume: Volume, box: Box, chunk: VoxelsZYX) -> VoxelsZYX:
    chunks = box.to_chunks(volume.chunks)
    present = volume.present(chunks)
    nearest = ndimage.distance_transform_edt(~present, return_distances=False, return_indices=True)
    local = tuple(
        min(max(index - start, 0), count - 1)
        for index, start, count in zip(chunk, chunks.start, chunks.shape, strict=True)
    )
    return zyx(int(start + along[local]) for start, along in zip(chunks.start, nearest, strict=True))


def find_tissue(volume: Volume, core: Box, wanted: Box, *, absent_is_zero: bool = False) -> Tissue:
    """The tissue around ``core``, no larger than ``wanted``; bounds may exceed the array.

    The box grows from the core, a layer of chunks at a time, while the layer is there in whole.
    Raises VolumeError when nothing of the core is there.
    """
    whole = volume.grid.box
    inside = core.intersect(whole)
    if not inside.size:
        raise VolumeError(f"{volume.place}: the crop lies outside the EM; check the manifest's translation")
    if absent_is_zero:
        volume.check_names()
        return Tissue(volume, whole, absent_is_zero=True)
    limits = wanted.intersect(whole)
    volume.look_up(limits)
    chunks = inside.to_chunks(volume.chunks)
    present = volume.present(chunks)
    if not present.any():
        volume.check_names()
        raise VolumeError(
            f"{volume.place}: none of the crop's EM is there (its chunks were never written); fetch the data, "
            "or say --absent-is-zero where black is real"
        )
    there = np.argwhere(present)
    occupied = Box(zyx(there.min(axis=0)), zyx(there.max(axis=0) + 1)).shifted(chunks.start)
    for axis in range(3):
        occupied = _grown(volume, occupied, axis, limits)
    return Tissue(volume, occupied.of_chunks(volume.chunks).intersect(limits))


def _grown(volume: Volume, chunks: Box, axis: int, limits: Box) -> Box:
    """The chunks, and layers of chunks before and after them along an axis that are there and within the limits."""
    size = volume.chunks[axis]
    start, stop = chunks.start[axis], chunks.stop[axis]

    def layer_is_there(index: int) -> bool:
        return bool(volume.present(chunks.with_axis(axis, index, index + 1)).all())

    while start * size > limits.start[axis] and layer_is_there(start - 1):
        start -= 1
    while stop * size < limits.stop[axis] and layer_is_there(stop):
        stop += 1
    return chunks.with_axis(axis, start, stop)
