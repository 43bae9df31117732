"""Stored probabilities and labels, read as probabilities on any part of a target's grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid, Interpolation, Target, resample, resample_labels, support
from ensemble.plan import PredictionSource
from ensemble.storage import Volume, open_volume
from ensemble.submission import Submission
from ensemble.support import VolumeError


class ReadableArray(Protocol):
    """An array with its grid: a volume, one inside a submission, or a part of one in memory."""

    @property
    def place(self) -> str: ...

    @property
    def grid(self) -> Grid: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, box: Box) -> NDArray[Any]: ...


@dataclass(frozen=True)
class ArrayInMemory:
    """A part of an array in memory."""

    array: NDArray[Any]
    grid: Grid
    place: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def read(self, box: Box) -> NDArray[Any]:
        return self.array[box.slices]


@dataclass(frozen=True)
class Channel:
    """One channel of a volume."""

    volume: Volume
    index: int

    @property
    def place(self) -> str:
        return self.volume.place

    @property
    def grid(self) -> Grid:
        return self.volume.grid

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.volume.dtype

    def read(self, box: Box) -> NDArray[Any]:
        return self.volume.read(box, self.index)


def _in_memory(volume: ReadableArray, block: Grid) -> ArrayInMemory:
    window = support(volume.grid, block)
    return ArrayInMemory(volume.read(window), volume.grid.sub(window), volume.place)


def _bytes(volume: ReadableArray, block: Grid) -> int:
    return support(volume.grid, block).size * volume.dtype.itemsize


@dataclass(frozen=True)
class StoredProbabilities:
    """Stored probabilities of one class; unsigned integers are shares of their largest value."""

    volume: ReadableArray
    identity: str = ""

    def over(self, block: Grid) -> "StoredProbabilities":
        """The same over ``block``, in memory. Raises VolumeError where values are no probabilities."""
        part = _in_memory(self.volume, block)
        if part.array.dtype.kind != "u" and not (np.min(part.array) >= 0 and np.max(part.array) <= 1):
            raise VolumeError(f"{part.place}: {_not_probabilities(part.array)}; write probabilities from 0 to 1")
        return StoredProbabilities(part)

    def bytes_over(self, block: Grid) -> int:
        """What ``over`` holds."""
        return _bytes(self.volume, block)

    def probability(self, block: Grid, method: Interpolation) -> NDArray[np.float32]:
        data, source = self._around(block)
        if data.dtype.kind == "u":
            if not data.any():
                return np.zeros(block.shape, np.float32)
            data = data * _scale(data.dtype)
        return resample(data, source, block, method)

    def bounds(self, block: Grid) -> tuple[float, float]:
        """The least and the highest value that the probabilities on ``block`` are made of."""
        data, _ = self._around(block)
        scale = _scale(data.dtype) if data.dtype.kind == "u" else 1
        return float(data.min() * scale), float(data.max() * scale)

    def _around(self, block: Grid) -> tuple[NDArray[Any], Grid]:
        window = support(self.volume.grid, block)
        return self.volume.read(window), self.volume.grid.sub(window)

    def ids(self, block: Grid) -> None:
        return None


def _scale(dtype: np.dtype[Any]) -> np.float32:
    return np.float32(1 / np.iinfo(dtype).max)


def _not_probabilities(data: NDArray[Any]) -> str:
    bad = int(np.isnan(data).sum())
    return f"{bad} voxels are NaN" if bad else f"values run from {data.min():g} to {data.max():g}"


@dataclass(frozen=True)
class StoredLabels:
    """A label volume: probability 1 where there is a label; resampled by the nearest voxel."""

    volume: ReadableArray
    identity: str = ""

    def over(self, block: Grid) -> "StoredLabels":
        return StoredLabels(_in_memory(self.volume, block))

    def bytes_over(self, block: Grid) -> int:
        """What ``over`` holds."""
        return _bytes(self.volume, block)

    def probability(self, block: Grid, method: Interpolation) -> NDArray[np.float32]:
        return (self.ids(block) > 0).astype(np.float32)

    def bounds(self, block: Grid) -> tuple[float, float]:
        ids = self.volume.read(support(self.volume.grid, block))
        return float(ids.all()), float(ids.any())

    def ids(self, block: Grid) -> NDArray[Any]:
        window = support(self.volume.grid, block)
        return resample_labels(self.volume.read(window), self.volume.grid.sub(window), block)


def open_probabilities(source: PredictionSource, root: str, target: Target, name: str) -> StoredProbabilities:
    """Probabilities some other tool wrote. Raises VolumeError unless they cover the crop."""
    volume = _open(source.template, root, target, name, channels=len(source.channels))
    if volume.array.dtype.kind not in "uf":
        raise VolumeError(
            f"{volume.place}: its type {volume.array.dtype} does not hold probabilities; use uint8 or float"
        )
    if not source.channels:
        return StoredProbabilities(volume, volume.identity(volume.grid.box))
    if name not in source.channels:
        known = ", ".join(channel for channel in source.channels if channel)
        raise VolumeError(f"{volume.place}: the recipe's channels hold no {name}, only {known}; route it elsewhere")
    index = source.channels.index(name)
    return StoredProbabilities(Channel(volume, index), f"{volume.identity(volume.grid.box, index)} {index}")


def open_labels(template: str, root: str, target: Target, name: str) -> StoredLabels:
    """Labels of an earlier submission (a zip) or of a label volume."""
    place = _filled(template, root, target, name)
    if place.endswith(".zip"):
        array = Submission.open(Path(place)).array(target.group, name)
        _check_cover(array, target)
        status = Path(place).stat()
        return StoredLabels(array, f"{place} {status.st_size} {status.st_mtime_ns}")
    volume = _open(template, root, target, name)
    if volume.array.dtype.kind not in "uib":
        raise VolumeError(f"{volume.place}: its type {volume.array.dtype} does not hold labels; use whole numbers")
    return StoredLabels(volume, volume.identity(volume.grid.box))


def _filled(template: str, root: str, target: Target, name: str, crop: str | None = None) -> str:
    fields = {"root": str(root).rstrip("/"), "dataset": target.dataset, "class": name}
    return template.format(**fields, crop=crop or target.group)


def _open(template: str, root: str, target: Target, name: str, channels: int = 0) -> Volume:
    place = _filled(template, root, target, name)
    if "://" not in place and not Path(place).exists():
        bare = _filled(template, root, target, name, target.crop)
        place = bare if Path(bare).exists() else place
    volume = open_volume(place, channels=channels)
    _check_cover(volume, target)
    return volume


def _check_cover(volume: ReadableArray, target: Target) -> None:
    grid = volume.grid
    for axis, letter in enumerate("zyx"):
        short = max(grid.corner_nm[axis] - target.grid.corner_nm[axis], target.grid.end_nm[axis] - grid.end_nm[axis])
        if short > max(grid.voxel_size_nm[axis], target.grid.voxel_size_nm[axis]) * 1.001:
            raise VolumeError(
                f"{volume.place}: it ends {short:g} nm short of crop {target.crop} along {letter}; "
                "predict the whole crop, or check voxel_size and translation"
            )
