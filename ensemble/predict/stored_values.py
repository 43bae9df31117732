"""Stored arrays as they are read: what their values may be is judged here, whoever reads them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ensemble.core import Box, Grid
from ensemble.storage import StoredVolume, check_ids
from ensemble.support import VolumeError

TOLERANCE = 1e-3
"""By so much a probability may lie outside 0 to 1: what rounding and resampling do."""


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
class _Through:
    """An array read through another."""

    stored: ReadableArray

    @property
    def place(self) -> str:
        return self.stored.place

    @property
    def grid(self) -> Grid:
        return self.stored.grid

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)


@dataclass(frozen=True)
class Channel:
    """One channel of a volume."""

    volume: StoredVolume
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


@dataclass(frozen=True)
class Ids(_Through):
    """Whole numbers that name objects. Raises VolumeError on reading a negative one."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    def read(self, box: Box) -> NDArray[Any]:
        return check_ids(self.stored.read(box), self.place)


@dataclass(frozen=True)
class Fractions(_Through):
    """Shares of ``whole`` as float32 from 0 to 1. Raises VolumeError on reading others, by more than TOLERANCE.

    ``advice`` ends the message.
    """

    whole: float = 1
    advice: str = "write probabilities from 0 to 1"

    def read(self, box: Box) -> NDArray[np.float32]:
        values = self.stored.read(box)
        low, high = values.min(), values.max()
        if not (low >= -TOLERANCE * self.whole and high <= (1 + TOLERANCE) * self.whole):
            raise VolumeError(f"{self.place}: {_beyond(values)}; {self.advice}")
        shares = np.asarray(values, np.float32)
        if self.whole != 1:
            shares = shares / np.float32(self.whole)
        return shares if low >= 0 and high <= self.whole else shares.clip(0, 1)


def _beyond(values: NDArray[Any]) -> str:
    bad = int(np.isnan(values).sum())
    return f"{bad} voxels are NaN" if bad else f"values run from {values.min()!s} to {values.max()!s}"


@dataclass(frozen=True)
class Sigmoid(_Through):
    """Raw outputs of a network, each for itself."""

    def read(self, box: Box) -> NDArray[np.float32]:
        return np.asarray(expit(self.stored.read(box).astype(np.float32)))


@dataclass(frozen=True)
class Softmax(_Through):
    """A channel of raw outputs, as its share of all ``channels``; ``identity`` tells their content from others'."""

    channels: Sequence[ReadableArray]
    identity: str

    def read(self, box: Box) -> NDArray[np.float32]:
        total = _last_totals.of(self.identity, box, self.channels)
        return np.asarray(np.exp(self.stored.read(box).astype(np.float32) - total))


class _Totals(threading.local):
    """The logarithm of all channels' sum over the box that a thread asked for last, which its classes share."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Box], NDArray[np.float32]] = {}

    def of(self, identity: str, box: Box, channels: Sequence[ReadableArray]) -> NDArray[np.float32]:
        if (identity, box) not in self._kept:
            self._kept = {key: total for key, total in self._kept.items() if key[1] == box and key[0] != identity}
            total = np.full(box.shape, -np.inf, np.float32)
            for channel in channels:
                np.logaddexp(total, channel.read(box).astype(np.float32), out=total)
            self._kept[identity, box] = total
        return self._kept[identity, box]


_last_totals = _Totals()
