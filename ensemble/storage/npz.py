"""Arrays of NumPy's .npz archives, such as nnU-Net's probabilities: (channel,) z, y, x, without a grid of their own.

A member is unpacked once, block by block, to a file without a name that is gone when nobody reads it any more, for a
compressed one cannot be read in parts. No pickled object is ever loaded.
"""

import math
import os
import shutil
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ensemble.storage.foreign_volume import Index
from ensemble.support import VolumeError, one_line

_BLOCK_BYTES = 1 << 22
_KEPT_ARRAYS = 4


@dataclass(frozen=True)
class NpzArray:
    """A member of an archive, unpacked. Another process that it is sent to unpacks it for itself."""

    values: NDArray[Any]
    path: str
    name: str
    named: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (os.path.abspath(self.path), self.name, self.named)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return (1,) * self.ndim

    def read(self, index: Index) -> NDArray[Any]:
        return np.array(self.values[index])

    def state(self, index: Index) -> str:
        return self.named


def open_npz(path: str, name: str) -> NpzArray:
    """The named array of an archive, or its only one. Raises VolumeError for a damaged one, or without room for it."""
    try:
        status = os.stat(path)
        return _unpacked(path, name, status.st_size, status.st_mtime_ns)
    except (OSError, zipfile.BadZipFile, ValueError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise VolumeError(f"{path}: not readable as .npz: {one_line(error)}; write it again") from error


def _reopened(path: str, name: str, named: str) -> NpzArray:
    array = open_npz(path, name)
    if array.named != named:
        raise VolumeError(f"{path}: it was changed while it was read; run the same command again")
    return array


@lru_cache(maxsize=_KEPT_ARRAYS)
def _unpacked(path: str, name: str, size: int, mtime_ns: int) -> NpzArray:
    with zipfile.ZipFile(path) as archive:
        info = _member(archive, path, name)
        with archive.open(info) as stream:
            shape, is_fortran, dtype = _header(stream, path)
            wanted = math.prod(shape) * dtype.itemsize
            if wanted > info.file_size or not wanted:
                raise VolumeError(f"{path}: {info.filename} is not of its header's shape {list(shape)}; write it again")
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if wanted > free // 2:
                raise VolumeError(
                    f"{path}: {info.filename} unpacks to {wanted / 1e9:,.1f} GB and {tempfile.gettempdir()} has "
                    f"{free / 1e9:,.1f} GB free; set TMPDIR to a folder with twice the room"
                )
            with tempfile.TemporaryFile(prefix="ensemble-npz-") as scratch:
                _copy(stream, scratch, wanted, path)
                values = np.memmap(scratch, dtype, "r", shape=shape, order="F" if is_fortran else "C")
    return NpzArray(values, path, name, f"{info.filename} {size} {mtime_ns}")


def _member(archive: zipfile.ZipFile, path: str, name: str) -> zipfile.ZipInfo:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if not name and len(members) == 1:
        return next(iter(members.values()))
    if name not in members:
        held = ", ".join(list(members)[:12])
        raise VolumeError(f"{path}: name one of its arrays, as {path}:/NAME; it holds {held or 'none'}")
    return members[name]


def _header(stream: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise VolumeError(f"{path}: written in .npy version {version}, of no plain numbers; write it again")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject:
        raise VolumeError(f"{path}: holds Python objects, which are never loaded; write plain numbers")
    return shape, is_fortran, dtype


def _copy(stream: IO[bytes], scratch: IO[bytes], wanted: int, path: str) -> None:
    """All that the header tells of, and no more; read to the end, where the archive's checksum is compared."""
    while wanted:
        block = stream.read(min(_BLOCK_BYTES, wanted))
        if not block:
            raise VolumeError(f"{path}: ends before all of its voxels; write it again")
        scratch.write(block)
        wanted -= len(block)
    if stream.read(1):
        raise VolumeError(f"{path}: holds more than its header tells; write it again")
    scratch.flush()
