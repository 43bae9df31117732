"""The truth of a scene: every voxel exactly one atom, wherever it is asked for."""

import numpy as np

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.demo.scene import Painted
from tests.support.small_phantom import small_sample


def test_truth_at_a_place_does_not_depend_on_the_grid():
    """Every third voxel of a fine grid has its centre on a voxel of a coarse one."""
    scene = small_sample().scene((3, 0))
    fine = Grid((60, 66, 72), (4.0, 5.0, 6.0), (200.0, 330.0, 450.0))
    coarse = Grid((19, 21, 23), (12.0, 15.0, 18.0), (208.0, 345.0, 456.0))
    expected = scene.atoms_on(fine)[2::3, 3::3, 1::3][:19, :21, :23]
    assert len(np.unique(expected)) > 10
    assert np.mean(scene.atoms_on(coarse) != expected) < 1e-4
    cells = scene.instances_on(fine, "cell")[2::3, 3::3, 1::3][:19, :21, :23]
    assert np.mean(scene.instances_on(coarse, "cell") != cells) < 1e-4


def test_a_part_of_a_painted_scene_is_the_scene_painted_on_that_part():
    scene = small_sample().scene((3, 0))
    grid = Grid((24, 30, 40), (8.0, 8.0, 8.0), (204.25, 304.0, 304.5))
    part = Box((3, 5, 0), (20, 25, 30))
    whole, alone = scene.on(grid), scene.on(grid.sub(part))
    assert isinstance(alone, Painted)
    assert np.array_equal(whole.sub(part).atoms, alone.atoms)
    assert np.array_equal(whole.sub(part).labels("cell"), alone.labels("cell"))
    assert np.array_equal(alone.mask("cell"), alone.labels("cell") > 0)
    assert alone.mask("cell").any()
