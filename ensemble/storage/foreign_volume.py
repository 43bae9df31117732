"""Arrays of other formats than Zarr, with their grids: read by box, with axes z, y, x, like a Volume."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid
from ensemble.storage.volume import UNREADABLE
from ensemble.support import VolumeError, one_line

Index = tuple[int | slice, ...]


class BlockArray(Protocol):
    """An array in a file, of which a part can be read alone."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what is decoded at once."""
        ...

    def read(self, index: Index) -> NDArray[Any]: ...

    def state(self, index: Index) -> str:
        """A text that changes when the files do that are under ``index``."""
        ...


@dataclass(frozen=True)
class ForeignVolume:
    """An array that lies on ``grid``; ``order``: which of its axes are (the channel,) z, y, x."""

    array: BlockArray
    grid: Grid
    place: str
    order: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def read(self, box: Box, channel: int | None = None) -> NDArray[Any]:
        """The box, dtype kept; bounds inside the shape. Raises VolumeError where it cannot be read."""
        axes = self.order[-3:]
        try:
            found = self.array.read(self._index(box, channel))
        except UNREADABLE as error:
            raise VolumeError(
                f"{self.place}: voxels {box.start} to {box.stop} (z, y, x) cannot be read ({one_line(error)}); "
                "fetch or write it again"
            ) from error
        return found.transpose([sorted(axes).index(axis) for axis in axes])

    def _index(self, box: Box, channel: int | None) -> Index:
        index: list[int | slice] = [channel or 0] * self.array.ndim
        for axis, part in zip(self.order[-3:], box.slices, strict=True):
            index[axis] = part
        return tuple(index)

    def identity(self, box: Box, channel: int | None = None) -> str:
        """A digest that changes when the grid or a file under the box does, by its size and time."""
        told: Sequence[Any] = (self.grid, self.order, self.array.shape, self.dtype, box)
        return hashlib.sha256(f"{told} {self.array.state(self._index(box, channel))}".encode()).hexdigest()
