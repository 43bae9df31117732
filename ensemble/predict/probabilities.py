"""Stored probabilities and labels, read as probabilities on any part of a target's grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Grid, Interpolation, resample, resample_labels, support
from ensemble.predict.stored_values import ArrayInMemory, ReadableArray


def _in_memory(volume: ReadableArray, block: Grid) -> ArrayInMemory:
    window = support(volume.grid, block)
    return ArrayInMemory(volume.read(window), volume.grid.sub(window), volume.place)


def _bytes(volume: ReadableArray, block: Grid) -> int:
    return support(volume.grid, block).size * volume.dtype.itemsize


@dataclass(frozen=True)
class StoredProbabilities:
    """Stored probabilities of one class; unsigned integers are shares of their largest value.

    ``is_assumed`` says that nobody told so, and ``highest`` must show it.
    """

    volume: ReadableArray
    identity: str = ""
    is_assumed: bool = False

    def over(self, block: Grid) -> "StoredProbabilities":
        """The same over ``block``, in memory. Raises VolumeError where values are no probabilities."""
        return StoredProbabilities(_in_memory(self.volume, block), is_assumed=self.is_assumed)

    def bytes_over(self, block: Grid) -> int:
        """What ``over`` holds."""
        return _bytes(self.volume, block)

    def highest(self) -> int | None:
        """The highest whole number, where what it stands for is only assumed."""
        return int(self.volume.read(self.volume.grid.box).max()) if self.is_assumed else None

    def probability(self, block: Grid, method: Interpolation) -> NDArray[np.float32]:
        data, source = self._around(block)
        if data.dtype.kind in "ub" and not data.any():
            return np.zeros(block.shape, np.float32)
        return resample(_shares(data), source, block, method)

    def bounds(self, block: Grid) -> tuple[float, float]:
        """The least and the highest value that the probabilities on ``block`` are made of."""
        data = self.volume.read(support(self.volume.grid, block))
        return float(_shares(data.min())), float(_shares(data.max()))

    def _around(self, block: Grid) -> tuple[NDArray[Any], Grid]:
        window = support(self.volume.grid, block)
        return self.volume.read(window), self.volume.grid.sub(window)

    def ids(self, block: Grid) -> None:
        return None


def _shares(values: Any) -> NDArray[np.float32]:
    """Values of an array, or one of them, as float32; the same for each, wherever it stands."""
    if values.dtype.kind == "u":
        return np.asarray(values * np.float32(1 / np.iinfo(values.dtype).max), np.float32)
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class StoredLabels:
    """A label volume: probability 1 where there is an id above 0; resampled by the nearest voxel."""

    volume: ReadableArray
    identity: str = ""

    def over(self, block: Grid) -> "StoredLabels":
        """The same over ``block``, in memory. Raises VolumeError where an id is negative."""
        return StoredLabels(_in_memory(self.volume, block))

    def bytes_over(self, block: Grid) -> int:
        """What ``over`` holds."""
        return _bytes(self.volume, block)

    def highest(self) -> None:
        return None

    def probability(self, block: Grid, method: Interpolation) -> NDArray[np.float32]:
        return _is_labelled(self.ids(block)).astype(np.float32)

    def bounds(self, block: Grid) -> tuple[float, float]:
        labelled = _is_labelled(self.volume.read(support(self.volume.grid, block)))
        return float(labelled.all()), float(labelled.any())

    def ids(self, block: Grid) -> NDArray[Any]:
        window = support(self.volume.grid, block)
        return resample_labels(self.volume.read(window), self.volume.grid.sub(window), block)


def _is_labelled(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Which voxels are of an object; the only definition."""
    return np.asarray(ids > 0)
