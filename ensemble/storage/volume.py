"""Arrays with their grids: EM, truth, and predictions some other tool wrote, on disk or in a bucket.

Read with axes z, y, x, whatever their order on disk.
"""

import hashlib
import lzma
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, zyx
from ensemble.storage.chunk_keys import chunk_names, refuse_misnamed_chunks
from ensemble.storage.nodes import ZarrArray, exist, store_behind
from ensemble.support import VolumeError, one_line

UNREADABLE = (
    *(RuntimeError, ValueError, TypeError, OSError, KeyError, IndexError),
    *(zlib.error, lzma.LZMAError, EOFError, SystemError, MemoryError, struct.error),
)
"""What zarr and its codecs raise for a damaged chunk; Blosc a SystemError, where the size in its head is negative."""


@dataclass(frozen=True)
class Volume:
    """An array that lies on ``grid``, and is read as if its axes were (the channel,) z, y, x.

    ``order``: which of the array's axes these are; empty where they are that already. ``doubt``: what is not certain
    of its grid.
    """

    array: ZarrArray
    grid: Grid
    place: str
    order: tuple[int, ...] = ()
    doubt: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def chunks(self) -> VoxelsZYX:
        """Shape of what one file holds."""
        return self._zyx(self.array.shards or self.array.chunks)

    @property
    def decoded_chunks(self) -> VoxelsZYX:
        """Shape of what is decoded at once, perhaps a part of a shard."""
        return self._zyx(self.array.chunks)

    @property
    def _order(self) -> tuple[int, ...]:
        return self.order or tuple(range(self.array.ndim))

    def _zyx(self, of_axes: Sequence[int]) -> VoxelsZYX:
        return zyx(of_axes[axis] for axis in self._order[-3:])

    def read(self, box: Box, channel: int | None = None) -> NDArray[Any]:
        """The box, dtype kept; bounds inside the shape. Raises VolumeError naming a damaged chunk."""
        store = store_behind(self.array)
        if store is not None and store.has_cache:
            self.look_up(box)  # what is in the cache is taken from there only where it is known to be as in the bucket
        try:
            return self._values(box, channel)
        except UNREADABLE as error:
            chunk = self._damaged_chunk(box, channel)
            raise VolumeError(
                f"{self.place}: chunk {chunk} cannot be read ({one_line(error)}); fetch or write it again"
            ) from error

    def _values(self, box: Box, channel: int | None) -> NDArray[Any]:
        index: list[int | slice] = [channel or 0] * self.array.ndim
        for axis, part in zip(self._order[-3:], box.slices, strict=True):
            index[axis] = part
        found = np.asarray(self.array[tuple(index)])
        axes = self._order[-3:]
        return found.transpose([sorted(axes).index(axis) for axis in axes])

    def _damaged_chunk(self, box: Box, channel: int | None) -> str:
        for chunk in self._chunks_under(box).indices():
            part = Box.at(chunk, (1, 1, 1)).of_chunks(self.chunks).intersect(box)
            try:
                self._values(part, channel)
            except UNREADABLE:
                return self._key(chunk, channel)
        return "?"

    def _key(self, chunk: Sequence[int], channel: int | None = None) -> str:
        """The name of a chunk's file."""
        index = [(channel or 0) // deep for deep in self.array.shards or self.array.chunks]
        for axis, number in zip(self._order[-3:], chunk, strict=True):
            index[axis] = number
        return self.array.metadata.encode_chunk_key(tuple(index))

    def _chunks_under(self, box: Box) -> Box:
        """Indices of the chunks. Raises VolumeError for more than can be looked at one by one."""
        return self._countable(box.to_chunks(self.chunks))

    def _countable(self, chunks: Box) -> Box:
        if chunks.size > _MOST_CHUNKS:
            raise VolumeError(
                f"{self.place}: {chunks.size:,} chunks of {list(self.chunks)} voxels are to be looked for; write it "
                "again in larger ones"
            )
        return chunks

    def present(self, chunks: Box) -> NDArray[np.bool_]:
        """Which chunks of a box of chunk indices were ever written; one that was not reads as the fill value."""
        names, store = self._names(self._countable(chunks)), store_behind(self.array)
        there = exist(self.place, names) if store is None else [state != "" for state in store.states(names)]
        return self._in_order(np.array(there, bool), chunks)

    def check_names(self) -> None:
        """Raises VolumeError where there are chunks, though none by the names that the array's metadata give them."""
        refuse_misnamed_chunks(self.array, self.place)

    def look_up(self, box: Box) -> None:
        """Have the chunks under a box asked for together, where that is over a network; later it is known of each."""
        store = store_behind(self.array)
        if store is not None:
            store.states(self._names(self._chunks_under(box)))

    def remote_files(self, box: Box) -> dict[str, str]:
        """The files of the chunks under a box, by their paths in the bucket, with what changes when they do."""
        store, names = store_behind(self.array), self._names(self._chunks_under(box))
        if store is None:
            return {}
        return {store.key(name): state for name, state in zip(names, store.states(names), strict=True) if state}

    def _names(self, chunks: Box, channel: int | None = None) -> list[str]:
        """Names of the files of a box of chunk indices, in the order of the array's axes."""
        along: list[Iterable[int]] = [[(channel or 0) // deep] for deep in self.array.shards or self.array.chunks]
        for number, axis in enumerate(self._order[-3:]):
            along[axis] = chunks.along(number)
        return chunk_names(self.array, along)

    def _in_order(self, of_chunks: NDArray[Any], chunks: Box) -> NDArray[Any]:
        """What is said of chunks in the order of the array's axes, with axes z, y, x."""
        axes = self._order[-3:]
        places = [sorted(axes).index(axis) for axis in axes]
        shape = [chunks.shape[places.index(at)] for at in range(3)]
        return of_chunks.reshape(shape).transpose(places)

    def identity(self, box: Box, channel: int | None = None) -> str:
        """A digest that changes when the metadata or a chunk file under the box does.

        A file's is its size and time; over a network its ETag, or its time where it has none.
        """
        digest = hashlib.sha256(f"{self.array.metadata} {self.grid} {self.order}".encode())
        chunks, store = self._chunks_under(box), store_behind(self.array)
        names = self._names(chunks, channel)
        if store is not None:
            digest.update(f"{chunks} {store.states(names)}".encode())
            return digest.hexdigest()
        digest.update(str(chunks).encode())
        for number, name in enumerate(names if Path(self.place).exists() else ()):
            with suppress(FileNotFoundError):
                status = os.stat(f"{self.place}/{name}")
                digest.update(f"{number} {status.st_size} {status.st_mtime_ns} ".encode())
        return digest.hexdigest()


_MOST_CHUNKS = 1 << 21
