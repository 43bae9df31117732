"""A place names an array of any format; a source's grid is for those that say none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.given_grid import GivenGrid
from ensemble.storage.stored import file_of, open_stored
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise, write_array

CROP = Grid((8, 9, 10), (16, 8, 8), (1008, 204, 304))
VALUES = np.stack([noise(CROP.shape), noise(CROP.shape) + 1])


def test_a_file_is_told_from_the_array_in_it() -> None:
    assert file_of("a/b.h5:/c/d") == "a/b.h5" and file_of("a/b.npz") == "a/b.npz"
    assert file_of("file:///a/b.hdf5:/c") == "/a/b.hdf5" and file_of("a/b.zarr/c") == "a/b.zarr/c"


@pytest.mark.parametrize("axes", ["czyx", "cxyz", "zyxc"])
def test_an_npz_lies_where_the_source_says(tmp_path, axes) -> None:
    np.savez_compressed(tmp_path / "a.npz", probabilities=VALUES.transpose(["czyx".index(a) for a in axes]))
    volume = open_stored(tmp_path / "a.npz", crop=CROP, channels=2, given=GivenGrid(axes=axes, is_crop=True))
    assert volume.grid == CROP
    assert (volume.read(Box((1, 2, 3), (8, 4, 5)), 1) == VALUES[1, 1:8, 2:4, 3:5]).all()


@pytest.mark.parametrize(
    ("channels", "given", "message"),
    [
        (2, None, "nothing says its voxel size and origin; say grid"),
        (2, GivenGrid(axes="cxyz", is_crop=True), "are not just the crop"),
        (3, GivenGrid(is_crop=True), "where 3 channels and z, y, x are expected; correct the recipe's channels"),
        (0, GivenGrid(is_crop=True), "name the class of each channel under channels"),
    ],
)
def test_an_npz_that_the_source_says_too_little_or_wrong_of_is_refused(tmp_path, channels, given, message) -> None:
    np.savez(tmp_path / "a.npz", probabilities=VALUES)
    with pytest.raises(VolumeError, match=rf"a\.npz: .*{message}"):
        open_stored(tmp_path / "a.npz", crop=CROP, channels=channels, given=given)


def test_a_zarr_array_says_its_own_grid(tmp_path) -> None:
    place = write_array(tmp_path / "p", VALUES[0], CROP)
    assert open_stored(place, crop=CROP).grid == CROP
    with pytest.raises(VolumeError, match="drop grid from its source"):
        open_stored(place, crop=CROP, given=GivenGrid(is_crop=True))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a.h5:/x", r"a\.h5: there is no such file"),
        ("https://host/a.h5:/x", "read from this machine only; fetch it first"),
        ("ssh://host/a.h5:/x", "nothing is read by 'ssh'"),
    ],
)
def test_what_is_not_on_this_machine_is_refused(place, message) -> None:
    with pytest.raises(VolumeError, match=message):
        open_stored(place, crop=CROP)


def test_without_its_library_what_to_install_is_told(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(VolumeError, match=r"a\.h5: reading HDF5 needs h5py: pip install h5py"):
        open_stored(f"{tmp_path}/a.h5:/x", crop=CROP)
