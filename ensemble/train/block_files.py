"""Blocks of crops in files, so that what one process has computed the others read."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.support import replacing

FREE_BYTES = 8 << 30
"""Of the disk, left for others."""

Arrays = tuple[NDArray[Any], ...]


class BlockFiles:
    """A file for each block that was computed, in a folder that is gone with the training; as long as there is room."""

    def __init__(self, folder: Path, free_bytes: int = FREE_BYTES) -> None:
        self._folder, self._free_bytes = folder, free_bytes

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of one shape that somebody has stored under the name, else those of ``make``, then stored."""
        path = self._folder / f"{name}.npy"
        try:
            return _read(path)
        except FileNotFoundError:
            arrays = make()
        with suppress(OSError):  # a full disk costs time alone
            if shutil.disk_usage(self._folder.parent).free > self._free_bytes:
                _write(path, arrays)
        return arrays


def _write(path: Path, arrays: Arrays) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, np.array([len(arrays), *arrays[0].shape]))
        for array in arrays:
            np.save(file, array[:1, :1, :1] if 0 in array.strides else array)  # the same all over: one voxel


def _read(path: Path) -> Arrays:
    with path.open("rb") as file:
        count, *shape = np.load(file).tolist()
        stored = [np.load(file) for _ in range(count)]
    return tuple(array if array.shape == tuple(shape) else np.broadcast_to(array, shape) for array in stored)
