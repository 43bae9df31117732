"""Zarr v2 arrays that this project writes itself: whole chunks at a time, by many threads, each at once or not at all.

The zarr library takes three times as long for a chunk of a mask, most of it not in the codec. What others wrote is
read through that library, or as ``submission.stored_array`` says.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numcodecs
import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Target, VoxelsZYX, chunk_shape
from ensemble.support import VolumeError, cores, one_line, replacing, write_text


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that only encode and decode; they wait for nobody."""
    return ThreadPoolExecutor(cores())


class Codec(Protocol):
    """How a chunk becomes bytes and back; ``decode`` raises for what ``encode`` did not make."""

    def encode(self, values: NDArray[Any]) -> bytes: ...

    def decode(self, data: bytes) -> bytes: ...


@dataclass(frozen=True)
class Encoding:
    """A codec, and how an array's metadata name it: its compressor and its filters."""

    codec: Codec
    compressor: Mapping[str, Any]
    filters: list[dict[str, Any]] | None = None


class ChunkedArray:
    """An array (z, y, x) in a folder; chunks that were never written, or hold only zeros, have no file.

    Made by ``create`` or ``reopen``. Boxes lie inside the array.
    """

    def __init__(self, place: Path, shape: VoxelsZYX, dtype: np.dtype[Any], encoding: Encoding) -> None:
        self.place, self.shape, self.chunks = Path(place), shape, chunk_shape(shape)
        self.dtype, self._encoding = np.dtype(dtype).newbyteorder("<"), encoding

    @classmethod
    def create(
        cls,
        place: Path,
        shape: VoxelsZYX,
        dtype: np.dtype[Any],
        encoding: Encoding,
        attributes: Mapping[str, Any] | None = None,
    ) -> "ChunkedArray":
        """A new array of zeros in place of whatever was there."""
        array = cls(place, shape, dtype, encoding)
        shutil.rmtree(array.place, ignore_errors=True)
        array.place.mkdir(parents=True)
        if attributes is not None:
            (array.place / ".zattrs").write_text(json.dumps(dict(attributes), indent=2) + "\n")
        (array.place / ".zarray").write_text(array._metadata())
        return array

    @classmethod
    def reopen(cls, place: Path, shape: VoxelsZYX, dtype: np.dtype[Any], encoding: Encoding) -> "ChunkedArray":
        """An array as ``create`` and what was written since left it. Raises VolumeError where it is another."""
        array = cls(place, shape, dtype, encoding)
        try:
            found = (array.place / ".zarray").read_text()
        except (OSError, ValueError):
            found = ""
        if found != array._metadata():
            raise VolumeError(f"{array.place}: its .zarray is not as it was written")
        return array

    @classmethod
    def kept(
        cls,
        place: Path,
        shape: VoxelsZYX,
        dtype: np.dtype[Any],
        encoding: Encoding,
        attributes: Mapping[str, Any] | None = None,
    ) -> "ChunkedArray":
        """The array as it was left, if it is there, else one of zeros; its metadata are those given in any case."""
        array = cls(place, shape, dtype, encoding)
        array.place.mkdir(parents=True, exist_ok=True)
        if attributes is not None:
            write_text(array.place / ".zattrs", json.dumps(dict(attributes), indent=2) + "\n")
        write_text(array.place / ".zarray", array._metadata())
        return array

    def _metadata(self) -> str:
        metadata = {
            "shape": list(self.shape),
            "chunks": list(self.chunks),
            "dtype": self.dtype.str,
            "fill_value": 0,
            "order": "C",
            "filters": self._encoding.filters,
            "dimension_separator": ".",
            "compressor": dict(self._encoding.compressor),
            "zarr_format": 2,
        }
        return json.dumps(metadata, indent=2) + "\n"

    @property
    def _box(self) -> Box:
        return Box.of_shape(self.shape)

    def __getitem__(self, box: Box) -> NDArray[Any]:
        """The values, perhaps read only. Raises VolumeError naming a chunk whose bytes are not as written."""
        parts = list(self._parts(box))
        if len(parts) == 1:
            return self._read(parts[0])[parts[0].inside.slices]
        out = np.zeros(box.shape, self.dtype)

        def fill(part: _Part) -> None:
            if part.file.exists():
                out[part.outside.slices] = self._read(part)[part.inside.slices]

        list(_pool().map(fill, parts))
        return out

    def __setitem__(self, box: Box, values: NDArray[Any] | int) -> None:
        given = np.broadcast_to(values, box.shape)

        def write(part: _Part) -> None:
            new = given[part.outside.slices]
            if new.shape != part.extent:
                whole = np.array(self._read(part))
                whole[part.inside.slices] = new
                new = whole
            self._write(part, new)

        parts = list(self._parts(box))
        if len(parts) == 1:
            write(parts[0])
        else:
            list(_pool().map(write, parts))

    def _parts(self, box: Box) -> "Iterator[_Part]":
        """The chunks under a box."""
        for index in box.to_chunks(self.chunks).indices():
            chunk = Box.at(index, (1, 1, 1)).of_chunks(self.chunks).intersect(self._box)
            both = chunk.intersect(box)
            file = self.place / ".".join(map(str, index))
            yield _Part(file, chunk.shape, both.relative_to(chunk), both.relative_to(box))

    def _read(self, part: "_Part") -> NDArray[Any]:
        """A chunk as far as it lies in the array, read only."""
        try:
            encoded = part.file.read_bytes()
        except FileNotFoundError:
            return np.zeros(part.extent, self.dtype)
        try:
            values = np.frombuffer(self._encoding.codec.decode(encoded), self.dtype).reshape(self.chunks)
        except (RuntimeError, ValueError) as error:
            raise VolumeError(f"{self.place}: chunk {part.file.name} is damaged ({one_line(error)})") from error
        return values[Box.of_shape(part.extent).slices]

    def _write(self, part: "_Part", values: NDArray[Any]) -> None:
        if not values.any():
            part.file.unlink(missing_ok=True)
            return
        whole = np.ascontiguousarray(values, dtype=self.dtype)
        if whole.shape != self.chunks:
            whole = np.pad(whole, [(0, c - n) for c, n in zip(self.chunks, whole.shape, strict=True)])
        with replacing(part.file) as partial:
            partial.write_bytes(self._encoding.codec.encode(whole))


@dataclass(frozen=True)
class _Part:
    """What a box has of a chunk: the chunk's file, its shape in the array, where in the chunk and in the box."""

    file: Path
    extent: VoxelsZYX
    inside: Box
    outside: Box


@dataclass(frozen=True)
class _Checked:
    """A quick codec, and a checksum before its bytes."""

    codec: Any = field(default_factory=lambda: numcodecs.Blosc("lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE))
    checksum: Any = field(default_factory=numcodecs.CRC32)

    def encode(self, values: NDArray[Any]) -> bytes:
        return bytes(self.checksum.encode(self.codec.encode(values)))

    def decode(self, data: bytes) -> bytes:
        return bytes(self.codec.decode(self.checksum.decode(data)))


_SCRATCH = Encoding(_Checked(), {"id": "blosc", "with": "crc32"})


def scratch_array(folder: Path, target: Target, name: str, dtype: np.dtype[Any]) -> ChunkedArray:
    """An array on the target's grid under ``folder``, as it was left; zeros where nothing was.

    Its chunks carry checksums. Raises VolumeError where what is there is not as it was written.
    """
    place = folder / name.replace(" ", "-")
    there = (place / ".zarray").exists()
    return (ChunkedArray.reopen if there else ChunkedArray.kept)(place, target.grid.shape, dtype, _SCRATCH)
