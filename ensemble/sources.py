"""Stored probabilities and labels, read as probabilities on any block of a target's grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ensemble.errors import VolumeError
from ensemble.grid import Grid, Slices
from ensemble.manifest import Target
from ensemble.resample import Method, resample, resample_labels, support
from ensemble.submission import Submission
from ensemble.volume import Volume, open_volume


class Field(Protocol):
    """One class as one source has it."""

    def probability(self, block: Grid, method: Method) -> np.ndarray:
        """Probabilities on ``block``, float32."""
        ...

    def ids(self, block: Grid) -> np.ndarray | None:
        """Object ids on ``block``, or None for a source that has none."""
        ...


@dataclass(frozen=True)
class Probabilities:
    """Stored probabilities; unsigned integers are shares of their largest value."""

    volume: Volume
    channel: int | None = None
    identity: str = ""

    def probability(self, block: Grid, method: Method) -> np.ndarray:
        window = support(self.volume.grid, block)
        data = self.volume.read(window, self.channel)
        if data.dtype.kind == "u":
            scale = np.float32(1 / np.iinfo(data.dtype).max)
            if not data.any():
                return np.zeros(block.shape, np.float32)
            return resample(data * scale, self.volume.grid.sub(window), block, method)
        data = data.astype(np.float32)
        if not (np.min(data) >= 0 and np.max(data) <= 1):
            raise VolumeError(f"{self.volume.place}: {_not_probabilities(data)}; write probabilities from 0 to 1")
        return resample(data, self.volume.grid.sub(window), block, method)

    def ids(self, block: Grid) -> None:
        return None


def _not_probabilities(data: np.ndarray) -> str:
    bad = int(np.isnan(data).sum())
    return f"{bad} voxels are NaN" if bad else f"values run from {data.min():g} to {data.max():g}"


class Readable(Protocol):
    """A label array with its grid, on its own or inside a submission."""

    place: str

    @property
    def grid(self) -> Grid: ...

    def read(self, block: Slices) -> np.ndarray: ...


@dataclass(frozen=True)
class Labels:
    """A label volume: probability 1 where there is a label; resampled by the nearest voxel."""

    volume: Readable
    identity: str

    def probability(self, block: Grid, method: Method) -> np.ndarray:
        return (self.ids(block) > 0).astype(np.float32)

    def ids(self, block: Grid) -> np.ndarray:
        window = support(self.volume.grid, block)
        return resample_labels(self.volume.read(window), self.volume.grid.sub(window), block)


def open_probabilities(template: str, root: str, target: Target, name: str) -> Probabilities:
    """Probabilities some other tool wrote. Raises VolumeError unless they cover the crop."""
    volume = _open(template, root, target, name)
    if volume.array.dtype.kind not in "uf":
        raise VolumeError(
            f"{volume.place}: its type {volume.array.dtype} does not hold probabilities; use uint8 or float"
        )
    return Probabilities(volume, identity=volume.identity(_whole(volume.grid)))


def open_labels(template: str, root: str, target: Target, name: str) -> Labels:
    """Labels of an earlier submission (a zip) or of a label volume."""
    place = _filled(template, root, target, name)
    if place.endswith(".zip"):
        array = Submission.open(Path(place)).array(target.group, name)
        _check_cover(array, target)
        status = Path(place).stat()
        return Labels(array, f"{place} {status.st_size} {status.st_mtime_ns}")
    volume = _open(template, root, target, name)
    if volume.array.dtype.kind not in "uib":
        raise VolumeError(f"{volume.place}: its type {volume.array.dtype} does not hold labels; use whole numbers")
    return Labels(volume, volume.identity(_whole(volume.grid)))


def _whole(grid: Grid) -> Slices:
    return tuple(slice(0, n) for n in grid.shape)


def _filled(template: str, root: str, target: Target, name: str, crop: str | None = None) -> str:
    fields = {"root": str(root).rstrip("/"), "dataset": target.dataset, "class": name}
    return template.format(**fields, crop=crop or target.group)


def _open(template: str, root: str, target: Target, name: str) -> Volume:
    place = _filled(template, root, target, name)
    if "://" not in place and not Path(place).exists():
        bare = _filled(template, root, target, name, target.crop)
        place = bare if Path(bare).exists() else place
    volume = open_volume(place)
    _check_cover(volume, target)
    return volume


def _check_cover(volume: Readable, target: Target) -> None:
    grid = volume.grid
    for axis, letter in enumerate("zyx"):
        short = max(grid.corner_nm[axis] - target.grid.corner_nm[axis], target.grid.end_nm[axis] - grid.end_nm[axis])
        if short > max(grid.voxel_size_nm[axis], target.grid.voxel_size_nm[axis]) * 1.001:
            raise VolumeError(
                f"{volume.place}: it ends {short:g} nm short of crop {target.crop} along {letter}; "
                "predict the whole crop, or check voxel_size and translation"
            )
