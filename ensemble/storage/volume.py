"""Arrays on disk with their grids: EM pyramids, truth, and predictions some other tool wrote.

OME-NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3) groups, and plain Zarr arrays with ``voxel_size`` and
``translation``. Read with axes z, y, x, whatever their order on disk; translation is the centre of the first voxel.
"""

import hashlib
import lzma
import math
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, zyx
from ensemble.storage.addresses import Location, is_url, plain
from ensemble.storage.alignment import aligned
from ensemble.storage.chunk_cache import ChunkCache
from ensemble.storage.chunk_keys import chunk_names, refuse_misnamed_chunks
from ensemble.storage.metadata import Multiscale, attributes_of, multiscale_of
from ensemble.storage.nodes import ZarrArray, exist, open_node, store_behind
from ensemble.storage.placing import Placement, place_level, place_plain
from ensemble.support import VolumeError, in_threads, one_line

_UNREADABLE = (
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
        except _UNREADABLE as error:
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
            except _UNREADABLE:
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
        if store is not None:
            states = store.states(self._names(chunks, channel))
            digest.update(f"{chunks} {states}".encode())
            return digest.hexdigest()
        for chunk in chunks.indices() if Path(self.place).exists() else ():
            with suppress(FileNotFoundError):
                status = os.stat(f"{self.place}/{self._key(chunk, channel)}")
                digest.update(f"{chunk} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()


_MOST_CHUNKS = 1 << 21

_AT_ONCE = 8
"""Levels of a pyramid that are opened at a time where each is asked for over a network."""

_MOST_BYTES = 1 << 30
"""Of a chunk, which is decoded whole."""


@dataclass(frozen=True)
class Pyramid:
    """One dataset's EM at several voxel sizes, finest first."""

    place: str
    levels: tuple[Volume, ...]


def em_place(root: Location, dataset: str) -> str:
    return f"{str(root).rstrip('/')}/{dataset}/{dataset}.zarr/recon-1/em/fibsem-uint8"


def truth_place(root: Location, dataset: str, crop: str) -> str:
    return f"{str(root).rstrip('/')}/{dataset}/{dataset}.zarr/recon-1/labels/groundtruth/crop{crop}"


def open_em(root: Location, dataset: str, cache: ChunkCache | None = None) -> Pyramid:
    """The EM pyramid of a dataset; chunks of a URL are copied to ``cache``.

    Raises VolumeError when it is missing or its grids are not known.
    """
    return open_pyramid(em_place(root, dataset), cache=cache)


def open_pyramid(location: Location, *, channels: int = 0, cache: ChunkCache | None = None) -> Pyramid:
    """A multiscale group as volumes, finest level first; with ``channels``, of so many channels before z, y, x.

    Whether chunks have the names that they should is known of all levels in a folder; behind a URL of none yet.
    """
    place = plain(location)
    group = open_node(place)
    multiscale = None if isinstance(group, zarr.Array) else multiscale_of(attributes_of(group, place), place)
    if multiscale is None:
        raise VolumeError(f"{place}: no OME-NGFF multiscales in its attributes, so its voxel size is unknown")

    def opened(index: int) -> Volume:
        return _open_level(f"{place}/{multiscale.datasets[index].path}", multiscale, index, channels, cache)

    # over a network each takes several requests, one after the other
    indices = range(len(multiscale.datasets))
    levels = list(in_threads(_AT_ONCE, opened, indices) if is_url(place) else map(opened, indices))
    levels.sort(key=lambda volume: volume.grid.voxel_volume_nm3)
    if multiscale.says_only_scales:
        levels = [_aligned(levels[0], level) for level in levels]
    return Pyramid(place, tuple(levels))


def _open_level(place: str, multiscale: Multiscale, index: int, channels: int, cache: ChunkCache | None) -> Volume:
    array = open_node(place, cache)
    if not isinstance(array, zarr.Array):
        raise VolumeError(f"{place}: not an array")
    _check_array(array, channels, place)
    volume = _volume(array, place_level(array, multiscale, index, place), channels, place)
    if not is_url(place):
        volume.check_names()
    return volume


def _aligned(finest: Volume, level: Volume) -> Volume:
    grid, doubt = aligned(finest.grid, level.grid)
    return replace(level, grid=grid, doubt=f"{level.place}: {doubt}" if doubt else "")


def open_volume(location: Location, *, channels: int = 0, expected: Grid | None = None) -> Volume:
    """A stored array with its grid: a plain array with attributes, or level 0 of a multiscale group.

    A plain array needs ``voxel_size`` and ``translation`` in nm, or lies where it is ``expected`` if it has no
    translation. With ``channels``, the array has so many before its axes z, y, x. Raises VolumeError for another
    shape, or when metadata are missing or contradict each other.
    """
    place = plain(location)
    local = Path(place)
    if (local / "s0").is_dir() and not any((local / name).exists() for name in (".zgroup", ".zarray", "zarr.json")):
        return open_volume(local / "s0", channels=channels)  # a plain folder that holds the array
    node = open_node(place)
    if isinstance(node, zarr.Group):
        if multiscale_of(attributes_of(node, place), place) is not None:
            finest = open_pyramid(place, channels=channels).levels[0]
            finest.check_names()
            return finest
        if exist(place, ("s0/.zarray", "s0/zarr.json")) != [False, False]:
            return open_volume(f"{place}/s0", channels=channels)
        raise VolumeError(f"{place}: a group without OME-NGFF multiscales; expected an array of predictions")
    _check_array(node, channels, place)
    volume = _volume(node, place_plain(node, place, expected=expected), channels, place)
    volume.check_names()
    return volume


def _check_array(array: ZarrArray, channels: int, place: Location) -> None:
    if array.dtype.kind not in "buif":
        raise VolumeError(f"{place}: its type {array.dtype} is none of numbers; write whole numbers or floats")
    if channels and array.ndim != 4:
        raise VolumeError(_other_channels(array, channels, place))
    if not channels and array.ndim != 3:
        more = "; name the class of each channel under channels" if array.ndim == 4 else ""
        raise VolumeError(f"{place}: {array.ndim} axes where three are expected: z, y, x{more}")
    if min(array.shape) < 1:
        raise VolumeError(f"{place}: its shape is {list(array.shape)}, so there is nothing in it; write it again")
    if min(*array.chunks, *(array.shards or ())) < 1 or math.prod(array.chunks) * array.dtype.itemsize > _MOST_BYTES:
        raise VolumeError(
            f"{place}: its chunks of {list(array.chunks)} voxels cannot be held; write it in chunks of up to 1 GiB"
        )


def _volume(array: ZarrArray, placement: Placement, channels: int, place: Location) -> Volume:
    if channels and array.shape[placement.order[0]] != channels:
        raise VolumeError(_other_channels(array, channels, place))
    in_order = placement.order == tuple(range(array.ndim))
    return Volume(array, placement.grid, str(place), () if in_order else placement.order)


def _other_channels(array: ZarrArray, channels: int, place: Location) -> str:
    return (
        f"{place}: its shape is {list(array.shape)} where {channels} channels and z, y, x are expected; correct"
        " the recipe's channels"
    )
