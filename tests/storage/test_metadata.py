"""Attributes are values of known types, or one line that names the key."""

import json

import pytest
import zarr

from ensemble.storage.metadata import NAMES_OF_AXES, Axis, Placed, attributes_of, multiscale_of, read_attributes
from ensemble.support.errors import VolumeError

AXES = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
LEVEL = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [8, 8, 8]}]}
RIGHT = {"axes": AXES, "datasets": [LEVEL], "version": "0.4", "name": "em"}


def test_a_multiscale_image_is_found_in_zarr_v2_and_v3():
    for attributes in ({"multiscales": [RIGHT]}, {"ome": {"version": "0.5", "multiscales": [RIGHT, 3]}}):
        image = multiscale_of(attributes, "em")
        assert image.datasets[0].path == "s0"
        assert image.datasets[0].transformations[0].scale == (8, 8, 8)
        assert image.says_only_scales
    assert multiscale_of({"ome": {}, "others": 3}, "em") is None


def test_axes_may_be_names_alone():
    assert multiscale_of({"multiscales": [{**RIGHT, "axes": ["z", "y", "x"]}]}, "em").axes[0] == Axis(name="z")
    assert set(NAMES_OF_AXES) == {"_ARRAY_DIMENSIONS", "axis_names", "axes", "units", "unit"}


@pytest.mark.parametrize(
    ("multiscales", "told"),
    [
        (3, "multiscales: must be a list"),
        ([3], "multiscales[0]: must hold keys and values, not 3"),
        ([{**RIGHT, "axes": 3}], "multiscales[0].axes: must be a list, not 3"),
        ([{"datasets": [LEVEL]}], "multiscales[0].axes: is missing"),
        ([{**RIGHT, "datasets": []}], "multiscales[0].datasets: "),
        ([{**RIGHT, "datasets": [{}]}], "multiscales[0].datasets[0].path: is missing"),
        ([{**RIGHT, "datasets": [{"path": 3}]}], "multiscales[0].datasets[0].path: must be a valid string, not 3"),
        ([{**RIGHT, "coordinateTransformations": {"type": "scale"}}], "coordinateTransformations: must be a list"),
        ([{**RIGHT, "coordinateTransformations": [{"type": "affine"}]}], "'affine' is not known"),
        ([{**RIGHT, "coordinateTransformations": [{"type": "scale", "scale": 8}]}], "scale: must be a list, not 8"),
        ([{**RIGHT, "coordinateTransformations": [{"type": "scale", "scale": [float("nan")]}]}], "finite number"),
    ],
)
def test_what_is_of_another_type_is_told_by_key(multiscales, told):
    with pytest.raises(VolumeError) as caught:
        multiscale_of({"multiscales": multiscales}, "em")
    assert str(caught.value).startswith("em: its attributes: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_tools_keys_are_their_own():
    assert read_attributes(Placed, {"voxel_size": [8, 8, 8], "offset": "?"}, "a").voxel_size == (8, 8, 8)


def test_attributes_are_keys_and_values(tmp_path):
    zarr.create_array(str(tmp_path), shape=(2, 2, 2), dtype="u1", zarr_format=2, attributes={"a": 1})
    assert attributes_of(zarr.open(str(tmp_path), mode="r"), tmp_path) == {"a": 1}
    (tmp_path / ".zattrs").write_text(json.dumps([1, 2]))
    with pytest.raises(VolumeError, match="its attributes are no keys and values, but list"):
        attributes_of(zarr.open(str(tmp_path), mode="r"), tmp_path)
