"""Zarr v2 arrays that this project writes itself: whole chunks at a time, by many threads, each at once or not at all.

The zarr library takes three times as long for a chunk of a mask, most of it not in the codec, and leaves half a
chunk where it is killed. What others wrote is read through that library, or as ``zarr2`` says.
"""

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from ensemble.core.box import Slices
from ensemble.core.manifest import Target
from ensemble.core.tiling import chunk_shape
from ensemble.support import machine as resources


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that only encode and decode; they wait for nobody."""
    return ThreadPoolExecutor(resources.cores())


class ChunkedArray:
    """An array (z, y, x) in a folder; chunks that were never written, or hold only zeros, have no file."""

    def __init__(
        self, place: Path, shape: Sequence[int], chunks: Sequence[int], dtype: np.dtype, codec: numcodecs.abc.Codec
    ) -> None:
        self.place, self.shape, self.chunks = Path(place), tuple(shape), tuple(chunks)
        self.dtype, self._codec = np.dtype(dtype).newbyteorder("<"), codec

    @classmethod
    def create(
        cls,
        place: Path,
        shape: Sequence[int],
        dtype: np.dtype,
        codec: numcodecs.abc.Codec,
        stored_codec: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None,
    ) -> "ChunkedArray":
        """A new array of zeros in place of whatever was there; ``stored_codec`` is how its metadata name the codec."""
        array = cls(place, shape, chunk_shape(shape), dtype, codec)
        shutil.rmtree(array.place, ignore_errors=True)
        array.place.mkdir(parents=True)
        metadata = {
            "shape": list(array.shape),
            "chunks": list(array.chunks),
            "dtype": array.dtype.str,
            "fill_value": 0,
            "order": "C",
            "filters": None,
            "dimension_separator": ".",
            "compressor": dict(stored_codec),
            "zarr_format": 2,
        }
        if attributes is not None:
            (array.place / ".zattrs").write_text(json.dumps(dict(attributes), indent=2) + "\n")
        (array.place / ".zarray").write_text(json.dumps(metadata, indent=2) + "\n")
        return array

    @classmethod
    def open(cls, place: Path, codec: numcodecs.abc.Codec) -> "ChunkedArray":
        """An array that ``create`` made."""
        said = json.loads((Path(place) / ".zarray").read_text())
        return cls(place, said["shape"], said["chunks"], np.dtype(said["dtype"]), codec)

    def _bounds(self, index: Slices | slice) -> Slices:
        given = index if isinstance(index, tuple) else (index,)
        given = (*given, *(slice(None) for _ in self.shape[len(given) :]))
        return tuple(slice(*s.indices(n)[:2]) for s, n in zip(given, self.shape, strict=True))

    def __getitem__(self, index: Slices | slice) -> np.ndarray:
        block = self._bounds(index)
        parts = list(self._parts(block))
        if len(parts) == 1:
            chunk, inside, _ = parts[0]
            return self._read(chunk)[inside]
        out = np.zeros([s.stop - s.start for s in block], self.dtype)

        def one(part: tuple[tuple[int, ...], Slices, Slices]) -> None:
            chunk, inside, outside = part
            if self._file(chunk).exists():
                out[outside] = self._read(chunk)[inside]

        list(_pool().map(one, parts))
        return out

    def __setitem__(self, index: Slices | slice, values: np.ndarray | int) -> None:
        block = self._bounds(index)
        values = np.broadcast_to(values, [s.stop - s.start for s in block])

        def one(part: tuple[tuple[int, ...], Slices, Slices]) -> None:
            chunk, inside, outside = part
            new = values[outside]
            if new.shape != self._extent(chunk):
                whole = np.array(self._read(chunk))
                whole[inside] = new
                new = whole
            self._write(chunk, new)

        parts = list(self._parts(block))
        if len(parts) == 1:
            one(parts[0])
        else:
            list(_pool().map(one, parts))

    def _parts(self, block: Slices) -> Iterator[tuple[tuple[int, ...], Slices, Slices]]:
        """Chunks under a block: (chunk, where in the chunk, where in the block)."""
        ranges = (range(s.start // c, -(-s.stop // c)) for s, c in zip(block, self.chunks, strict=True))
        for chunk in product(*ranges):
            both = [
                (max(s.start, i * c), min(s.stop, (i + 1) * c))
                for s, i, c in zip(block, chunk, self.chunks, strict=True)
            ]
            inside = tuple(slice(a - i * c, b - i * c) for (a, b), i, c in zip(both, chunk, self.chunks, strict=True))
            outside = tuple(slice(a - s.start, b - s.start) for (a, b), s in zip(both, block, strict=True))
            yield chunk, inside, outside

    def _extent(self, chunk: Sequence[int]) -> tuple[int, ...]:
        """Shape of a chunk as far as it lies in the array."""
        return tuple(min(c, n - i * c) for i, c, n in zip(chunk, self.chunks, self.shape, strict=True))

    def _file(self, chunk: Sequence[int]) -> Path:
        return self.place / ".".join(map(str, chunk))

    def _read(self, chunk: Sequence[int]) -> np.ndarray:
        """A chunk as far as it lies in the array, read only."""
        try:
            encoded = self._file(chunk).read_bytes()
        except FileNotFoundError:
            return np.zeros(self._extent(chunk), self.dtype)
        values = np.frombuffer(self._codec.decode(encoded), self.dtype).reshape(self.chunks)
        return values[tuple(slice(n) for n in self._extent(chunk))]

    def _write(self, chunk: Sequence[int], values: np.ndarray) -> None:
        file = self._file(chunk)
        if not values.any():
            file.unlink(missing_ok=True)
            return
        whole = np.ascontiguousarray(values, dtype=self.dtype)
        if whole.shape != self.chunks:
            whole = np.pad(whole, [(0, c - n) for c, n in zip(self.chunks, whole.shape, strict=True)])
        part = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_bytes(self._codec.encode(whole))
        os.replace(part, file)


_SCRATCH = numcodecs.Blosc(cname="lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)


def scratch_array(folder: Path, target: Target, name: str, dtype: np.dtype, *, keep: bool = False) -> ChunkedArray:
    """An array of zeros on the target's grid under ``folder``; with ``keep`` as it was left, if it is there."""
    place = folder / name.replace(" ", "-")
    if keep and (place / ".zarray").exists():
        return ChunkedArray.open(place, _SCRATCH)
    return ChunkedArray.create(place, target.grid.shape, dtype, _SCRATCH, _SCRATCH.get_config())
