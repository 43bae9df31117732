"""EM pyramids, truth and predictions opened: OME-NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3) groups, and plain arrays.

Plain arrays say ``voxel_size`` and ``translation``, the centre of the first voxel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import zarr

from ensemble.core import Grid
from ensemble.storage.addresses import Location, is_url, plain
from ensemble.storage.alignment import aligned
from ensemble.storage.chunk_cache import ChunkCache
from ensemble.storage.foreign_volume import BlockArray
from ensemble.storage.metadata import Multiscale, attributes_of, multiscale_of
from ensemble.storage.nodes import ZarrArray, exist, open_node
from ensemble.storage.placing import Placement, place_level, place_plain
from ensemble.storage.volume import Volume
from ensemble.support import VolumeError, in_threads

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
    check_array(array, channels, place)
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
    check_array(node, channels, place)
    volume = _volume(node, place_plain(node, place, expected=expected), channels, place)
    volume.check_names()
    return volume


def check_array(array: ZarrArray | BlockArray, channels: int, place: Location) -> None:
    if array.dtype.kind not in "buif":
        raise VolumeError(f"{place}: its type {array.dtype} is none of numbers; write whole numbers or floats")
    if channels and array.ndim != 4:
        raise VolumeError(other_channels(array.shape, channels, place))
    if not channels and array.ndim != 3:
        more = "; name the class of each channel under channels" if array.ndim == 4 else ""
        raise VolumeError(f"{place}: {array.ndim} axes where three are expected: z, y, x{more}")
    if min(array.shape) < 1:
        raise VolumeError(f"{place}: its shape is {list(array.shape)}, so there is nothing in it; write it again")
    if (
        min(*array.chunks, *(getattr(array, "shards", None) or ())) < 1
        or math.prod(array.chunks) * array.dtype.itemsize > _MOST_BYTES
    ):
        raise VolumeError(
            f"{place}: its chunks of {list(array.chunks)} voxels cannot be held; write it in chunks of up to 1 GiB"
        )


def _volume(array: ZarrArray, placement: Placement, channels: int, place: Location) -> Volume:
    if channels and array.shape[placement.order[0]] != channels:
        raise VolumeError(other_channels(array.shape, channels, place))
    in_order = placement.order == tuple(range(array.ndim))
    return Volume(array, placement.grid, str(place), () if in_order else placement.order)


def other_channels(shape: Sequence[int], channels: int, place: Location) -> str:
    return (
        f"{place}: its shape is {list(shape)} where {channels} channels and z, y, x are expected; correct"
        " the recipe's channels"
    )
