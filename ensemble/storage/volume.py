"""Arrays on disk with their grids: EM pyramids, truth, and predictions some other tool wrote.

OME-NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3) groups, and plain Zarr arrays with ``voxel_size`` and
``translation``. Axes z, y, x; translation is the centre of the first voxel.
"""

import hashlib
import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, nm_zyx, zyx
from ensemble.storage.chunk_keys import refuse_misnamed_chunks
from ensemble.storage.nodes import Location, ZarrArray, exist, open_node
from ensemble.support import VolumeError, one_line

_NM_PER_UNIT = {"nanometer": 1.0, "nm": 1.0, "micrometer": 1000.0, "um": 1000.0, "angstrom": 0.1}


_UNREADABLE = (
    *(RuntimeError, ValueError, TypeError, OSError, KeyError, IndexError),
    *(zlib.error, lzma.LZMAError, EOFError, SystemError),
)
"""What zarr and its codecs raise for a damaged chunk; Blosc a SystemError, where the size in its head is negative."""


@dataclass(frozen=True)
class Volume:
    """An array whose last three axes lie on ``grid``."""

    array: ZarrArray
    grid: Grid
    place: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def chunks(self) -> VoxelsZYX:
        return zyx((self.array.shards or self.array.chunks)[-3:])

    def read(self, box: Box, channel: int | None = None) -> NDArray[Any]:
        """The box, dtype kept; bounds inside the shape. Raises VolumeError naming a damaged chunk."""
        try:
            return self._values(box, channel)
        except _UNREADABLE as error:
            chunk = self._damaged_chunk(box, channel)
            raise VolumeError(
                f"{self.place}: chunk {chunk} cannot be read ({one_line(error)}); fetch or write it again"
            ) from error

    def _values(self, box: Box, channel: int | None) -> NDArray[Any]:
        index: tuple[int | slice, ...] = box.slices if channel is None else (channel, *box.slices)
        return np.asarray(self.array[index])

    def _damaged_chunk(self, box: Box, channel: int | None) -> str:
        for chunk in box.to_chunks(self.chunks).indices():
            part = Box.at(chunk, (1, 1, 1)).of_chunks(self.chunks).intersect(box)
            try:
                self._values(part, channel)
            except _UNREADABLE:
                return self._key(chunk, channel)
        return "?"

    def _key(self, chunk: Sequence[int], channel: int | None = None) -> str:
        deep = (self.array.shards or self.array.chunks)[0]
        full = tuple(chunk) if self.array.ndim == 3 else ((channel or 0) // deep, *chunk)
        return self.array.metadata.encode_chunk_key(full)

    def present(self, chunks: Box) -> NDArray[np.bool_]:
        """Which chunks of a box of chunk indices were ever written; one that was not reads as the fill value."""
        keys = [self._key(chunk) for chunk in chunks.indices()]
        return np.array(exist(self.place, keys), bool).reshape(chunks.shape)

    def identity(self, box: Box, channel: int | None = None) -> str:
        """A digest that changes when the metadata or a chunk file under the box does."""
        digest = hashlib.sha256(f"{self.array.metadata} {self.grid}".encode())
        local = Path(self.place)
        for chunk in box.to_chunks(self.chunks).indices() if local.exists() else ():
            file = local / self._key(chunk, channel)
            if file.exists():
                status = file.stat()
                digest.update(f"{chunk} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Pyramid:
    """One dataset's EM at several voxel sizes, finest first."""

    place: str
    levels: tuple[Volume, ...]


def em_place(root: Location, dataset: str) -> str:
    return f"{str(root).rstrip('/')}/{dataset}/{dataset}.zarr/recon-1/em/fibsem-uint8"


def truth_place(root: Location, dataset: str, crop: str) -> str:
    return f"{str(root).rstrip('/')}/{dataset}/{dataset}.zarr/recon-1/labels/groundtruth/crop{crop}"


def open_em(root: Location, dataset: str) -> Pyramid:
    """The EM pyramid of a dataset. Raises VolumeError when it is missing or its grids are not known."""
    return open_pyramid(em_place(root, dataset))


def open_pyramid(place: Location, *, channels: int = 0) -> Pyramid:
    """A multiscale group as volumes, finest level first; with ``channels``, of so many channels before z, y, x."""
    group = open_node(place)
    multiscale = _multiscale(group, place)
    if multiscale is None:
        raise VolumeError(f"{place}: no OME-NGFF multiscales in its attributes, so its voxel size is unknown")
    levels = []
    for entry in multiscale.get("datasets", ()):
        level_place = f"{place}/{entry['path']}"
        array = open_node(level_place)
        if not isinstance(array, zarr.Array):
            raise VolumeError(f"{level_place}: not an array")
        _check_axes(array, channels, level_place)
        refuse_misnamed_chunks(array, level_place)
        levels.append(Volume(array, _ngff_grid(array, multiscale, entry, place), level_place))
    if not levels:
        raise VolumeError(f"{place}: its multiscales list no dataset")
    return Pyramid(str(place), tuple(sorted(levels, key=lambda v: v.grid.voxel_volume_nm3)))


def _multiscale(node: ZarrArray | zarr.Group, place: Location) -> dict[str, Any] | None:
    attributes: dict[str, Any] = dict(node.attrs)
    listed = attributes.get("ome", attributes).get("multiscales")
    if not isinstance(node, zarr.Group) or not listed:
        return None
    if not isinstance(listed, list) or not isinstance(listed[0], dict):
        raise VolumeError(f"{place}: its multiscales attribute is not as OME-NGFF 0.4 says")
    return listed[0]


def _ngff_grid(array: ZarrArray, multiscale: dict[str, Any], entry: dict[str, Any], place: Location) -> Grid:
    axes = [axis for axis in multiscale.get("axes", ()) if axis.get("type", "space") == "space"]
    if [axis.get("name") for axis in axes] != ["z", "y", "x"]:
        raise VolumeError(f"{place}: its axes are not z, y, x")
    unit = axes[0].get("unit", "nanometer")
    if unit not in _NM_PER_UNIT or any(axis.get("unit", unit) != unit for axis in axes):
        raise VolumeError(f"{place}: its unit {unit!r} is not a length this tool knows; use nanometer")
    scale, translation = np.ones(3), np.zeros(3)
    for transform in (
        *entry.get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ):
        if transform.get("type") == "scale":
            factor = np.asarray(transform["scale"][-3:], float)
            scale, translation = scale * factor, translation * factor
        elif transform.get("type") == "translation":
            translation = translation + np.asarray(transform["translation"][-3:], float)
    try:
        return Grid(zyx(array.shape[-3:]), nm_zyx(scale * _NM_PER_UNIT[unit]), nm_zyx(translation * _NM_PER_UNIT[unit]))
    except ValueError as error:
        raise VolumeError(f"{place}/{entry['path']}: {error}") from error


def open_volume(place: Location, *, channels: int = 0) -> Volume:
    """A stored array with its grid: a plain array with attributes, or level 0 of a multiscale group.

    A plain array needs ``voxel_size`` and ``translation`` in nm. With ``channels``, the array has so many before
    its axes z, y, x. Raises VolumeError for another shape, or when metadata are missing.
    """
    local = Path(place)
    if (local / "s0").is_dir() and not any((local / name).exists() for name in (".zgroup", ".zarray", "zarr.json")):
        return open_volume(local / "s0", channels=channels)  # a plain folder that holds the array
    node = open_node(place)
    if isinstance(node, zarr.Group):
        if _multiscale(node, place) is not None:
            return open_pyramid(place, channels=channels).levels[0]
        if "s0" in node:
            return open_volume(f"{place}/s0", channels=channels)
        raise VolumeError(f"{place}: a group without OME-NGFF multiscales; expected an array of predictions")
    _check_axes(node, channels, place)
    refuse_misnamed_chunks(node, str(place))
    attributes: dict[str, Any] = dict(node.attrs)
    missing = [key for key in ("voxel_size", "translation") if key not in attributes]
    if missing:
        raise VolumeError(
            f"{place}: its attributes lack {' and '.join(missing)}, so it cannot be placed; "
            "write voxel_size and translation (nm; z, y, x; centre of the first voxel)"
        )
    try:
        grid = Grid(zyx(node.shape[-3:]), nm_zyx(attributes["voxel_size"][-3:]), nm_zyx(attributes["translation"][-3:]))
    except (ValueError, TypeError) as error:
        raise VolumeError(f"{place}: voxel_size or translation: {error}") from error
    return Volume(node, grid, str(place))


def _check_axes(array: ZarrArray, channels: int, place: Location) -> None:
    if array.dtype.kind not in "buif":
        raise VolumeError(f"{place}: its type {array.dtype} is none of numbers; write whole numbers or floats")
    if channels and (array.ndim != 4 or array.shape[0] != channels):
        raise VolumeError(
            f"{place}: its shape is {list(array.shape)} where {channels} channels and z, y, x are expected; correct"
            " the recipe's channels"
        )
    if not channels and array.ndim != 3:
        more = "; name the class of each channel under channels" if array.ndim == 4 else ""
        raise VolumeError(f"{place}: {array.ndim} axes where three are expected: z, y, x{more}")
