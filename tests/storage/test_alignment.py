"""Levels that say only their voxel sizes share the finest one's corner or its first centre: their extents tell."""

import json

import numpy as np
import pytest
import zarr

from ensemble.core.grid import Grid
from ensemble.storage.alignment import aligned
from ensemble.storage.opening import open_pyramid


def grid(shape: tuple[int, int, int], size: float, origin: float = 0) -> Grid:
    return Grid(shape, (size,) * 3, (origin,) * 3)


@pytest.mark.parametrize(
    ("fine", "coarse", "factor", "begins"),
    [
        ((8, 8, 8), (4, 4, 4), 2, "corner"),
        ((8, 8, 9), (4, 4, 4), 2, "corner"),  # the last voxel was left out
        ((8, 8, 9), (4, 4, 5), 2, "corner"),  # or filled up
        ((9, 9, 9), (4, 4, 4), 2, "corner"),
        ((12, 12, 12), (3, 3, 3), 4, "corner"),
        ((9, 9, 9), (5, 5, 5), 2, "centre"),  # every other voxel
        ((13, 9, 5), (4, 3, 2), 4, "centre"),
        ((10, 10, 10), (3, 3, 3), 4, "doubt"),
        ((10, 10, 10), (9, 9, 9), 4, "doubt"),
        ((10, 10, 10), (10, 10, 10), 1, "centre"),
    ],
)
def test_extents_tell_where_a_level_begins(fine, coarse, factor, begins):
    level, doubt = aligned(grid(fine, 8), grid(coarse, 8 * factor))
    assert level.origin_nm == ((4 * factor - 4 if begins == "corner" else 0),) * 3
    assert ("write translations" in doubt) == (begins == "doubt")


def test_a_pyramid_of_means_is_recognised_and_one_that_says_where_it_lies_is_believed(tmp_path):
    datasets = []
    for level, n in enumerate((16, 8, 4)):
        zarr.create_array(str(tmp_path / f"s{level}"), data=np.ones((n, n, n), "u1"), zarr_format=2)
        scale = {"type": "scale", "scale": [4.0 * 2**level] * 3}
        datasets.append({"path": f"s{level}", "coordinateTransformations": [scale]})
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')

    def origins() -> list[float]:
        axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
        (tmp_path / ".zattrs").write_text(json.dumps({"multiscales": [{"axes": axes, "datasets": datasets}]}))
        pyramid = open_pyramid(tmp_path)
        assert not any(level.doubt for level in pyramid.levels)
        return [level.grid.origin_nm[0] for level in pyramid.levels]

    assert origins() == [0, 2, 6]
    datasets[0]["coordinateTransformations"].append({"type": "translation", "translation": [100.0] * 3})
    assert origins() == [100, 0, 0]
