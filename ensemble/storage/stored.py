"""Stored arrays of any format that is read: Zarr, HDF5 (FILE.h5:/NAME) and NumPy's .npz."""

import re
from pathlib import Path

from ensemble.core import Grid, zyx
from ensemble.storage.addresses import Location, foreign_protocol, is_url, plain
from ensemble.storage.foreign_volume import BlockArray, ForeignVolume
from ensemble.storage.given_grid import Claim, GivenGrid, settled
from ensemble.storage.hdf5 import open_hdf5, placed_hdf5
from ensemble.storage.npz import open_npz
from ensemble.storage.opening import check_array, open_volume, other_channels
from ensemble.storage.placing import order_of
from ensemble.storage.volume import Volume
from ensemble.support import VolumeError

StoredVolume = Volume | ForeignVolume

_IN_A_FILE = re.compile(r"(?P<file>.+\.(?P<kind>h5|hdf5|hdf|npz))(:/+(?P<name>.*))?", re.IGNORECASE | re.DOTALL)

_NO_GRID = GivenGrid()


def file_of(location: Location) -> str:
    """The file or folder that a place is in, without the name of an array inside a file."""
    place = plain(location)
    found = _IN_A_FILE.fullmatch(place)
    return found["file"] if found else place


def open_stored(location: Location, *, crop: Grid, channels: int = 0, given: GivenGrid | None = None) -> StoredVolume:
    """A stored array with its grid, of which ``given`` tells what the file does not; ``crop`` is asked for.

    With ``channels``, the array has so many before its axes z, y, x. Raises VolumeError when it is not there, of
    another shape, or when what is told of its grid is not enough or contradicts itself.
    """
    place = plain(location)
    found = _IN_A_FILE.fullmatch(place)
    if found is None or Path(place).is_dir():
        if given is not None:
            raise VolumeError(f"{place}: Zarr arrays say their own grid; drop grid from its source")
        return open_volume(place, channels=channels)
    if foreign := foreign_protocol(found["file"]):
        raise VolumeError(f"{place}: {foreign}")
    if is_url(place):
        raise VolumeError(f"{place}: a file of this format is read from this machine only; fetch it first")
    if not Path(found["file"]).is_file():
        raise VolumeError(f"{found['file']}: there is no such file; check the path and that the data was fetched")
    array, order, claims = _opened(found, given or _NO_GRID, place)
    check_array(array, channels, place)
    if channels and array.shape[order[0]] != channels:
        raise VolumeError(other_channels(array.shape, channels, place))
    shape = zyx(array.shape[axis] for axis in order[-3:])
    return ForeignVolume(array, settled(claims, shape, given or _NO_GRID, crop, place), place, order)


def _opened(found: re.Match[str], given: GivenGrid, place: str) -> tuple[BlockArray, tuple[int, ...], list[Claim]]:
    name = (found["name"] or "").strip("/")
    if found["kind"].lower() == "npz":
        unpacked = open_npz(found["file"], name)
        names: dict[str, list[str | None]] = {"grid.axes in the source": list(given.axes)} if given.axes else {}
        return unpacked, order_of(unpacked, names, place), []
    dataset, attributes = open_hdf5(found["file"], name, place)
    return dataset, *placed_hdf5(dataset, attributes, given, place)
