"""HDF5: a dataset is read in parts, lies where its attributes say, and is never another file's."""

from pathlib import Path

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.hdf5 import open_hdf5
from ensemble.storage.stored import open_stored
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")

GRID = Grid((9, 14, 20), (40, 4, 2), (420, 42, 21))
VALUES = noise(GRID.shape)
CORNER = {"resolution": [40.0, 4.0, 2.0], "offset": [400, 40, 20]}


def write(root: Path, values: np.ndarray, name: str = "volumes/mito", **attributes) -> str:
    with h5py.File(root / "a.h5", "w") as file:
        dataset = file.create_dataset(
            name, data=values, chunks=tuple(min(4, n) for n in values.shape), compression="gzip"
        )
        dataset.attrs.update(attributes)
    return f"{root}/a.h5:/{name}"


@pytest.mark.parametrize(
    "attributes",
    [
        CORNER,
        {"voxel_size": [40, 4, 2], "translation": [420, 42, 21]},
        {"element_size_um": [0.04, 0.004, 0.002], "translation": [420.0, 42.0, 21.0]},
        {"resolution": [0.04, 0.004, 0.002], "offset": [0.4, 0.04, 0.02], "units": ["um", "um", "um"]},
        {**CORNER, "element_size_um": np.array([0.04, 0.004, 0.002], np.float32), "axis_names": ["z", "y", "x"]},
    ],
)
def test_it_lies_where_its_attributes_say(tmp_path, attributes) -> None:
    volume = open_stored(write(tmp_path, VALUES, **attributes), crop=GRID)
    assert volume.grid.matches(GRID)
    assert (volume.read(Box((2, 3, 5), (9, 4, 20))) == VALUES[2:9, 3:4, 5:20]).all()


@pytest.mark.parametrize("key", ["axis_names", "axistags", "DIMENSION_LABELS"])
def test_axes_are_read_by_their_names_and_numbers_in_their_order(tmp_path, key) -> None:
    named = '{"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]}' if key == "axistags" else ["x", "y", "z"]
    told = {k: v[::-1] for k, v in CORNER.items()}
    volume = open_stored(write(tmp_path, VALUES.T, **{key: named}, **told), crop=GRID)
    assert volume.grid == GRID
    assert (volume.read(GRID.box) == VALUES).all()


def test_channels_may_be_last(tmp_path) -> None:
    both = np.stack([VALUES, VALUES + 1], axis=-1)
    tags = '{"axes": [{"key": "z"}, {"key": "y"}, {"key": "x"}, {"key": "c"}]}'
    told = {key: [*values, 1] for key, values in CORNER.items()}
    volume = open_stored(write(tmp_path, both, axistags=tags, **told), crop=GRID, channels=2)
    assert volume.grid == GRID
    assert (volume.read(GRID.box, 1) == VALUES + 1).all()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "nothing says its voxel size and origin; say grid"),
        ({"offset": [400, 40, 20]}, "nothing says its voxel size; say grid"),
        ({"element_size_um": [0.04, 0.004, 0.002]}, "nothing says its origin; say grid"),
        ({**CORNER, "element_size_um": [0.002, 0.004, 0.04]}, "element_size_um says voxels of .* but resolution"),
        ({**CORNER, "translation": [400, 40, 20]}, "translation says its first voxel's centre at .* but offset"),
        (
            {**CORNER, "axis_names": ["z", "y", "x"], "axistags": '{"axes":[{"key":"x"},{"key":"y"},{"key":"z"}]}'},
            "both",
        ),
        ({**CORNER, "axistags": "z y x"}, "axistags are not as ilastik writes them"),
        ({**CORNER, "units": "pixel"}, "its unit 'pixel' is not a length"),
        ({"resolution": [40, 4], "offset": [0, 0, 0]}, "its resolution holds 2 numbers where its axes are 3"),
        ({"resolution": "fine"}, "its attributes: resolution: "),
        ({"resolution": [0.0, 4.0, 4.0], "offset": [0, 0, 0]}, "nm large; write nm"),
    ],
)
def test_attributes_that_lie_or_lack_are_refused(tmp_path, attributes, message) -> None:
    with pytest.raises(VolumeError, match=rf"a\.h5:/volumes/mito: .*{message}"):
        open_stored(write(tmp_path, VALUES, **attributes), crop=GRID)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"a\.h5: which of its arrays is not said; write .*a\.h5:/NAME \(it holds /volumes/mito\)"),
        ("volumes", "a group, not an array"),
        ("volumes/er", "there is no such array in the file .it holds /volumes/mito"),
        ("elsewhere", "/elsewhere is a link to another file"),
        ("virtual", "its values lie in other files"),
        ("raw", "its values lie in other files"),
    ],
)
def test_what_is_no_array_of_the_file_is_refused(tmp_path, name, message) -> None:
    write(tmp_path, VALUES, **CORNER)
    with h5py.File(tmp_path / "b.h5", "w") as other:
        other["x"] = VALUES
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["elsewhere"] = h5py.ExternalLink("b.h5", "/x")
        layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "x", VALUES.shape)
        if name == "virtual":
            file.create_virtual_dataset("virtual", layout)
        if name == "raw":
            file.create_dataset("raw", (4, 4, 4), "u1", external=[(str(tmp_path / "b.h5"), 0, 64)])
    with pytest.raises(VolumeError, match=message):
        open_hdf5(str(tmp_path / "a.h5"), name, f"{tmp_path}/a.h5:/{name}")


def test_a_file_of_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nothing")
    with pytest.raises(VolumeError, match=r"a\.h5: not readable as HDF5"):
        open_stored(f"{tmp_path}/a.h5:/x", crop=GRID)


def test_a_damaged_chunk_is_told(tmp_path) -> None:
    place = write(tmp_path, VALUES, **CORNER)
    volume = open_stored(place, crop=GRID)
    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["volumes/mito"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(VolumeError, match=r"a\.h5:/volumes/mito: voxels .* cannot be read"):
        volume.read(GRID.box)
