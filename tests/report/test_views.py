"""Slices of an array: how large, of which planes, and what is in them."""

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.report.views import _planes, box_around, centre_of, em_window, plane_at, size_for, views_of, window
from ensemble.storage.opening import open_em
from ensemble.submission.reader import Submission
from tests.support.small_submission import write
from tests.support.volumes import noise, write_em


def test_pictures_stay_small_where_arrays_are_many():
    assert [size_for(n) for n in (10, 100, 413)] == [(256, 3), (192, 3), (128, 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 17, 100])
def test_the_slider_holds_the_busiest_plane_and_as_many_beside_it_as_there_are(size):
    for busiest in range(size):
        planes = _planes(busiest, size, 3)
        assert busiest in planes and planes == sorted(set(planes))
        assert len(planes) == min(size, 3)
        assert planes[0] >= 0 and planes[-1] < size
        assert _planes(busiest, size, 1) == [busiest]


def test_a_window_lies_around_the_chunk_that_holds_most_and_inside_the_array(tmp_path):
    with Submission.open(write(tmp_path / "s")) as submission:
        assert window(submission.array("crop984", "nuc"), 8) is None
        nuc = submission.array("crop557", "nuc")
        assert window(nuc, 8) == Box.at((62, 6, 11), (8, 8, 8))  # its only voxels lie in the last chunk along z
        assert window(nuc, 256) == Box.of_shape(nuc.shape)


def test_a_box_around_a_voxel_is_moved_inside():
    assert centre_of(Box((0, 4, 10), (10, 6, 13))) == (5, 5, 11)
    assert box_around((5, 5, 5), 4, (10, 10, 10)) == Box.at((3, 3, 3), (4, 4, 4))
    assert box_around((0, 9, 5), 4, (10, 10, 3)) == Box((0, 6, 0), (4, 10, 3))
    assert plane_at(Box((2, 3, 4), (9, 9, 9)), 5, 2) == Box((2, 3, 9), (9, 9, 10))


def test_slices_are_cut_where_most_of_the_array_is_and_say_where_that_is():
    grid = Grid((30, 20, 40), (4, 8, 8), (2, 4, 4))
    box = Box((10, 0, 8), (26, 20, 24))
    labels = np.zeros(box.shape, np.uint8)
    labels[7, 2:5, 3:9] = 1
    labels[6, 2, 3] = 2
    em = noise(box.shape)
    views = views_of(labels, box, grid, em, None, across=1)
    busiest = {view.axis: view.position for view in views if view.busiest}
    assert busiest == {"z": 17, "y": 2, "x": 11}
    assert [view.axis for view in views] == ["z"] * 3 + ["y", "x"]
    assert all(set(view.layers) == {"mask", "em"} for view in views)
    (z,) = [view for view in views if view.axis == "z" and view.busiest]
    assert z.where == "z 17 of 30, y 0–20, x 8–24 (voxels of 4 × 8 nm)"
    assert "em" not in views_of(labels, box, grid, None, None)[0].layers


def test_the_em_of_a_box_is_that_of_the_nearest_voxels(tmp_path):
    level = Grid((12, 12, 12), (8, 8, 8), (4, 4, 4))
    values = noise(level.shape)
    write_em(tmp_path, "d", [(values, level)])
    grid = Grid((10, 10, 10), (4, 4, 4), (18, 18, 18))  # its voxels lie two by two in those of the EM
    got = em_window(open_em(tmp_path, "d").levels, grid, Box((0, 2, 4), (4, 6, 8)))
    expected = values[2:4, 3:5, 4:6].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(got, expected)
