"""Axes and units as metadata name them, by any key: read as z, y, x in nm where that is certain, else refused."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import zarr

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.opening import open_volume
from ensemble.storage.placing import Placement, place_plain
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise

GRID = Grid((9, 14, 20), (4, 2, 1), (100, 50, 3))
VALUES = noise(GRID.shape)
KEYS = ["_ARRAY_DIMENSIONS", "axis_names", "axes", "axes of objects", "dimension_names", "multiscales"]


def write(place: Path, axes: str, key: str, *, placed: dict | None = None, unit: str | None = None) -> Path:
    """VALUES with their axes in another order, and (a channel first) two of them; named under a key."""
    data = np.stack([VALUES, VALUES + 1]) if "c" in axes else VALUES
    data = data.transpose([("czyx" if "c" in axes else "zyx").index(axis) for axis in axes])
    size, origin = (dict(zip("zyx", nm, strict=True)) for nm in (GRID.voxel_size_nm, GRID.origin_nm))
    lists = {"voxel_size": [size.get(a, 1) for a in axes], "translation": [origin.get(a, 0) for a in axes]}
    lists = lists if placed is None else placed
    options = {"zarr_format": 3 if key == "dimension_names" else 2, "chunks": (6,) * data.ndim, "fill_value": 0}
    entries: list[dict] = [{"name": a, "type": "channel" if a == "c" else "space"} for a in axes]
    entries = [{**entry, "unit": unit} for entry in entries] if unit else entries
    if key == "multiscales":
        zarr.create_array(str(place / "s0"), data=data, **options)
        scale, translation = ({"type": t, t: lists[k]} for t, k in (("scale", "voxel_size"), ("translation",) * 2))
        level = {"path": "s0", "coordinateTransformations": [scale, translation]}
        (place / ".zgroup").write_text('{"zarr_format": 2}')
        (place / ".zattrs").write_text(json.dumps({"multiscales": [{"axes": entries, "datasets": [level]}]}))
        return place
    if key == "dimension_names":
        zarr.create_array(str(place), data=data, dimension_names=list(axes), attributes=lists, **options)
        return place
    names = {"axes of objects": {"axes": entries}}.get(key, {key: list(axes)})
    zarr.create_array(str(place), data=data, attributes={**lists, **names}, **options)
    return place


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("zyx")])
def test_an_array_of_axes_in_any_order_reads_as_z_y_x(tmp_path, key, axes):
    volume = open_volume(write(tmp_path / "a", axes, key))
    assert volume.grid == GRID
    assert np.array_equal(volume.read(GRID.box), VALUES)
    box = Box((2, 3, 11), (8, 9, 20))
    assert np.array_equal(volume.read(box), VALUES[box.slices])
    assert volume.chunks == volume.decoded_chunks == (6, 6, 6)
    assert volume.present(Box.of_shape((2, 3, 4))).all()
    lost = Path(volume.place) / ".".join(str({"z": 1, "y": 0, "x": 3}[axis]) for axis in axes)
    if key != "dimension_names":
        lost.unlink()
        assert np.argwhere(~volume.present(Box.of_shape((2, 3, 4)))).tolist() == [[1, 0, 3]]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("axes", ["czyx", "zyxc", "xyzc", "cxyz"])
def test_the_channel_may_stand_anywhere(tmp_path, key, axes):
    volume = open_volume(write(tmp_path / "a", axes, key), channels=2)
    assert volume.grid == GRID
    assert np.array_equal(volume.read(GRID.box, 0), VALUES)
    assert np.array_equal(volume.read(GRID.box, 1), VALUES + 1)
    with pytest.raises(VolumeError, match="where 3 channels and z, y, x are expected"):
        open_volume(tmp_path / "a", channels=3)


@pytest.mark.parametrize("key", ["_ARRAY_DIMENSIONS", "axis_names", "dimension_names"])
@pytest.mark.parametrize(("names", "told"), [("zyz", "name the axes z, y, z"), ("abx", "name the axes a, b, x")])
def test_names_that_are_not_each_of_z_y_x_once_are_refused(tmp_path, key, names, told):
    lists = {"voxel_size": [4, 2, 1], "translation": [100, 50, 3]}
    place = tmp_path / "a"
    attributes = lists if key == "dimension_names" else {**lists, key: list(names)}
    more = {"dimension_names": list(names)} if key == "dimension_names" else {}
    zarr.create_array(str(place), data=VALUES, attributes=attributes, zarr_format=3 if more else 2, **more)
    with pytest.raises(VolumeError, match=f"its {key} {told}"):
        open_volume(place)


LISTS = {"voxel_size": [4, 2, 1], "translation": [100, 50, 3]}


def placed(tmp_path: Path, attributes: dict, expected: Grid | None = None) -> Placement:
    array = zarr.create_array(str(tmp_path / "a"), data=VALUES, attributes=attributes, zarr_format=2, overwrite=True)
    return place_plain(array, "a", expected=expected)


@pytest.mark.parametrize("said", [{}, {"_ARRAY_DIMENSIONS": ["dim_0", "dim_1", "dim_2"]}, {"axis_names": []}])
def test_names_that_say_nothing_leave_the_axes_as_they_are(tmp_path, said):
    assert placed(tmp_path, {**LISTS, **said}) == Placement((0, 1, 2), GRID)


def test_names_that_contradict_each_other_are_refused(tmp_path):
    said = {"_ARRAY_DIMENSIONS": ["z", "y", "x"], "axis_names": ["x", "y", "z"]}
    with pytest.raises(VolumeError, match="a: its _ARRAY_DIMENSIONS z, y, x but its axis_names x, y, z: "):
        placed(tmp_path, {**LISTS, **said})
    with pytest.raises(VolumeError, match=r"its axis_names name the axes z, y, x, c, where its shape is \[9, 14, 20\]"):
        placed(tmp_path, {**LISTS, "axis_names": ["z", "y", "x", "c"]})


UNITS = [("nm", 1), ("nanometer", 1), ("Nanometres", 1), ("um", 1e3), ("µm", 1e3), ("micrometer", 1e3), ("micron", 1e3)]
UNITS += [("angstrom", 0.1), ("Å", 0.1), ("mm", 1e6), ("millimeter", 1e6), ("meter", 1e9), ("pm", 1e-3), ("", 1)]


@pytest.mark.parametrize(("unit", "nm"), UNITS)
@pytest.mark.parametrize("said", ["units", "unit", "list", "axes"])
def test_lengths_are_converted_to_nm(tmp_path, unit, nm, said):
    keys = {"list": {"units": [unit] * 3}, "axes": {"axes": [{"name": a, "unit": unit} for a in "zyx"]}}
    lists = {key: [value / nm for value in values] for key, values in LISTS.items()}
    assert placed(tmp_path, {**lists, **keys.get(said, {said: unit})}).grid.matches(GRID)


@pytest.mark.parametrize("nm", [1e-9, 1e-3, 1e6])
def test_voxels_smaller_than_atoms_or_as_large_as_a_fly_are_of_another_unit(tmp_path, nm):
    with pytest.raises(VolumeError, match="nm large; write nm, or say its units"):
        placed(tmp_path, {**LISTS, "voxel_size": [8 * nm] * 3})


def test_each_axis_may_have_its_own_unit_and_an_unknown_one_is_refused(tmp_path):
    said = {"units": ["um", "nm", "nm"], "axis_names": ["x", "y", "z"]}
    grid = placed(tmp_path, {"voxel_size": [0.004, 2, 1], "translation": [0.1, 50, 3], **said}).grid
    assert (grid.voxel_size_nm, grid.origin_nm) == ((1, 2, pytest.approx(4)), (3, 50, pytest.approx(100)))
    for units, told in (("pixel", "its unit 'pixel' is not a length"), (["nm", "nm"], "its units are nm, nm, for 3")):
        with pytest.raises(VolumeError, match=told):
            placed(tmp_path, {**LISTS, "units": units})


@pytest.mark.parametrize("unit", ["micrometer", "angstrom", "nanometer"])
def test_a_multiscale_image_has_its_units(tmp_path, unit):
    nm = {"micrometer": 1e3, "angstrom": 0.1, "nanometer": 1}[unit]
    lists = {"voxel_size": [4 / nm, 2 / nm, 1 / nm], "translation": [100 / nm, 50 / nm, 3 / nm]}
    grid = open_volume(write(tmp_path / "a", "zyx", "multiscales", placed=lists, unit=unit)).grid
    assert grid.matches(GRID)


def test_an_array_that_does_not_say_where_it_lies_is_where_it_is_expected(tmp_path):
    assert placed(tmp_path, {}, GRID).grid == GRID
    assert placed(tmp_path, {"voxel_size": [8, 4, 2]}, GRID).grid == Grid(GRID.shape, (8, 4, 2), GRID.origin_nm)
    with pytest.raises(VolumeError, match="lack voxel_size,"):
        placed(tmp_path, {"translation": [0, 0, 0]}, GRID)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"voxel_size": 8},
            "voxel_size: must be a list, not 8; write three numbers, along z, y and x, in nm",
        ),
        ({"voxel_size": "8,8,8"}, "a: its attributes: voxel_size: must be a list, not '8,8,8'"),
        ({"voxel_size": ["8", 8, 8]}, "voxel_size[0]: must be a valid number, not '8'"),
        (
            {"voxel_size": [8, 8]},
            "a: its voxel_size holds 2 numbers where its axes are 3; write one for each of z, y, x",
        ),
        ({"voxel_size": [8, 8, 0]}, "a: voxel sizes are positive, not (8.0, 8.0, 0.0)"),
        ({"translation": [0, True, 0]}, "translation[1]: must be a valid number, not True"),
        ({"translation": [0, 10**400, 0]}, "translation[1]: must be a valid number, not 1000"),
        ({"translation": None}, "its attributes lack translation,"),
        ({"axes": 3}, "a: its attributes: axes: must be a list, not 3"),
        ({"units": 3}, "a: its attributes: units"),
    ],
)
def test_values_of_another_kind_are_told_by_key(tmp_path, said, told):
    with pytest.raises(VolumeError) as caught:
        placed(tmp_path, {**LISTS, **said})
    assert told in str(caught.value)
