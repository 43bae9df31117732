"""Datasets of HDF5 files (FILE.h5:/NAME), and what their attributes say of where they lie.

Known are ``element_size_um`` (micrometres), ``resolution`` or ``voxel_size``, ``offset`` (where the first voxel
begins), ``translation`` (its centre), and names of axes (``axistags``, ``axis_names``, ``DIMENSION_LABELS``).
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ensemble.core import nm_zyx
from ensemble.storage.foreign_volume import Index
from ensemble.storage.given_grid import Claim, GivenGrid
from ensemble.storage.metadata import Naming, Numbers, Placed, read_attributes
from ensemble.storage.placing import along, names_of, nm_per_unit, order_of, units_of
from ensemble.support import VolumeError, one_line

_MOST_NAMED = 12
"""Datasets of a file that a message names."""


class _Attributes(Placed):
    advice = "write three numbers, along the array's axes, or say its grid in the source"

    element_size_um: Numbers | None = None
    resolution: Numbers | None = None
    offset: Numbers | None = None
    dimension_labels: list[str] | None = Field(default=None, alias="DIMENSION_LABELS")


@dataclass(frozen=True)
class HDF5Array:
    """A dataset; its file is opened for each part that is read, so that it may be read in any process."""

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def read(self, index: Index) -> NDArray[Any]:
        with _opened(self.path) as file:
            return np.asarray(file[self.name][index])

    def state(self, index: Index) -> str:
        status = os.stat(self.path)
        return f"{self.name} {status.st_size} {status.st_mtime_ns}"


def open_hdf5(path: str, name: str, place: str) -> tuple[HDF5Array, dict[str, Any]]:
    """A dataset and its attributes. Raises VolumeError for what is none, or keeps its values in another file."""
    with _opened(path) as file:
        dataset = _dataset(file, path, name, place)
        chunks = dataset.chunks or (1,) * len(dataset.shape)
        array = HDF5Array(os.path.abspath(path), name, tuple(dataset.shape), np.dtype(dataset.dtype), tuple(chunks))
        return array, {key: _plain(dataset.attrs, key, place) for key in _KEYS if key in dataset.attrs}


_KEYS = (
    *("element_size_um", "resolution", "voxel_size", "offset", "translation", "unit", "units"),
    *("axistags", "axis_names", "axes", "_ARRAY_DIMENSIONS", "DIMENSION_LABELS"),
)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise VolumeError(f"{path}: reading HDF5 needs h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise VolumeError(f"{path}: not readable as HDF5: {one_line(error)}") from error
    with file:
        yield file


def _dataset(file: Any, path: str, name: str, place: str) -> Any:
    import h5py

    if not name:
        raise VolumeError(f"{path}: which of its arrays is not said; write {path}:/NAME ({_names_in(file)})")
    node, so_far = file, ""
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise VolumeError(f"{place}: there is no such array in the file ({_names_in(file)})")
        so_far = f"{so_far}/{part}"
        if isinstance(link, h5py.ExternalLink):
            raise VolumeError(f"{place}: {so_far} is a link to another file; name that file")
        try:
            node = node[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise VolumeError(f"{place}: {so_far} cannot be read ({one_line(error)}); write it again") from error
        if node.file.filename != file.filename:
            raise VolumeError(f"{place}: {so_far} leads to another file; name that file")
    if not isinstance(node, h5py.Dataset):
        raise VolumeError(f"{place}: a group, not an array; name one of its arrays ({_names_in(file)})")
    if node.shape is None:
        raise VolumeError(f"{place}: there is nothing in it; write it again")
    if node.external or node.is_virtual:
        raise VolumeError(f"{place}: its values lie in other files; name those, or write them into this one")
    return node


def _names_in(file: Any) -> str:
    """The file's own datasets, as far as a message has room; links to other files are not followed."""
    import h5py

    found: list[str] = []

    def note(name: str, node: Any) -> bool | None:
        if isinstance(node, h5py.Dataset):
            found.append(f"/{name}")
        return True if len(found) > _MOST_NAMED else None

    file.visititems(note)
    more = ", …" if len(found) > _MOST_NAMED else ""
    return f"it holds {', '.join(found[:_MOST_NAMED])}{more}" if found else "it holds none"


def _plain(attributes: Any, key: str, place: str) -> Any:
    try:
        value = attributes[key]
    except (OSError, TypeError, KeyError, RuntimeError, ValueError) as error:
        raise VolumeError(f"{place}: its attribute {key} cannot be read ({one_line(error)}); write it again") from error
    return _python(value)


def _python(value: Any) -> Any:
    """Numbers, texts and lists in place of NumPy's; an HDF5 text may be of bytes."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_python(item) for item in value] if isinstance(value, list) else value


def placed_hdf5(
    array: HDF5Array, attributes: dict[str, Any], given: GivenGrid, place: str
) -> tuple[tuple[int, ...], list[Claim]]:
    """The order of its axes, and what its attributes claim. Raises VolumeError for what cannot be meant."""
    naming = read_attributes(Naming, attributes, place)
    said = read_attributes(_Attributes, attributes, place)
    names = names_of(array, naming)
    if said.dimension_labels and any(said.dimension_labels):
        names["DIMENSION_LABELS"] = list(said.dimension_labels)
    if "axistags" in attributes:
        names["axistags"] = _axistags(attributes["axistags"], place)
    if given.axes:
        names["grid.axes in the source"] = list(given.axes)
    order = order_of(array, names, place)
    nm = nm_per_unit(units_of(naming), array.ndim, order, place)

    def nm_along(values: Numbers | None, key: str, nm: Any = nm) -> Any:
        return None if values is None else nm_zyx(along(values, array.ndim, order, f"{place}: its {key}") * nm)

    claims = [
        Claim("element_size_um", nm_along(said.element_size_um, "element_size_um", 1000.0)),
        Claim("resolution", nm_along(said.resolution, "resolution")),
        Claim("voxel_size", nm_along(said.voxel_size, "voxel_size")),
        Claim("offset", corner_nm=nm_along(said.offset, "offset")),
        Claim("translation", origin_nm=nm_along(said.translation, "translation")),
    ]
    return order, claims


def _axistags(text: Any, place: str) -> list[str | None]:
    """Names of axes, as VIGRA and ilastik write them."""
    try:
        return [str(axis["key"]) for axis in json.loads(text)["axes"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VolumeError(f"{place}: its axistags are not as ilastik writes them; write or remove them") from error
