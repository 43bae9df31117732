"""Arrays of other formats are read by box with axes z, y, x, and damage is told with its place."""

from itertools import permutations

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.foreign_volume import ForeignVolume
from ensemble.storage.npz import NpzArray
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise

GRID = Grid((5, 7, 9), (8, 8, 8), (0, 0, 0))
VALUES = np.stack([noise(GRID.shape), noise(GRID.shape) + 1])


@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("czyx")])
def test_whatever_the_order_of_axes_a_box_is_that_of_the_array_in_z_y_x(axes) -> None:
    stored = NpzArray(VALUES.transpose(["czyx".index(axis) for axis in axes]), "", "", "")
    volume = ForeignVolume(stored, GRID, "p", tuple(axes.index(axis) for axis in "czyx"))
    box = Box((1, 2, 3), (4, 4, 8))
    assert (volume.read(box, 1) == VALUES[1, 1:4, 2:4, 3:8]).all()


def test_what_cannot_be_read_is_told_with_its_place() -> None:
    class Damaged(NpzArray):
        def read(self, index):
            raise OSError("filter returned failure")

    volume = ForeignVolume(Damaged(VALUES[0], "", "", ""), GRID, "p.h5:/a", (0, 1, 2))
    with pytest.raises(VolumeError, match=r"p\.h5:/a: voxels \(0, 0, 0\) to \(5, 7, 9\) .*filter returned failure"):
        volume.read(GRID.box)


def test_its_identity_changes_with_the_file_and_the_grid() -> None:
    def identity(named: str, grid: Grid) -> str:
        return ForeignVolume(NpzArray(VALUES[0], "", "", named), grid, "p", (0, 1, 2)).identity(GRID.box)

    moved = Grid(GRID.shape, (8, 8, 8), (8, 0, 0))
    assert identity("a", GRID) == identity("a", GRID)
    assert len({identity("a", GRID), identity("b", GRID), identity("a", moved)}) == 3
