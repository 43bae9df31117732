"""Grids place voxels by their centres."""

import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid, fitting_level


def test_origin_is_the_centre_of_the_first_voxel() -> None:
    grid = Grid((10, 20, 30), (1.74, 2, 2), (100, 200, 300))
    assert grid.corner_nm == pytest.approx((99.13, 199, 299))
    assert grid.end_nm == pytest.approx((99.13 + 17.4, 199 + 40, 299 + 60))
    assert grid.centres_nm(0)[:2].tolist() == pytest.approx([100, 101.74])


def test_a_block_lies_where_its_voxels_lie() -> None:
    grid = Grid((10, 10, 10), (8, 8, 8), (4, 4, 4))
    block = grid.sub(Box((2, -1, 0), (5, 3, 10)))
    assert block == Grid((3, 4, 10), (8, 8, 8), (20, -4, 4))


def test_the_box_over_another_grid_is_all_voxels_that_touch_the_other() -> None:
    em = Grid((100, 100, 100), (8, 8, 8), (0, 0, 0))  # edges at -4, 4, 12 …
    crop = Grid((4, 4, 4), (2, 2, 2), (13, 17, 5))  # edges 12–20, 16–24, 4–12
    assert em.box_over(crop) == Box((2, 2, 1), (3, 4, 2))
    assert em.box_over(crop, (1, 0, 2)) == Box((1, 2, -1), (4, 4, 4))


def test_covering_begins_at_the_same_corner_and_covers_the_end() -> None:
    crop = Grid((5, 5, 5), (2, 2, 2), (1, 1, 1))  # 0–10 nm
    assert crop.covering((4, 4, 4)) == Grid((3, 3, 3), (4, 4, 4), (2, 2, 2))


def test_half_a_voxel_apart_is_another_grid() -> None:
    grid = Grid((10, 10, 10), (8, 8, 8), (4, 4, 4))
    assert grid.matches(Grid((10, 10, 10), (8, 8, 8), (4.000001, 4, 4)))
    assert not grid.matches(Grid((10, 10, 10), (8, 8, 8), (8, 4, 4)))
    assert not grid.matches(Grid((10, 10, 10), (8.01, 8, 8), (4, 4, 4)))


@pytest.mark.parametrize(
    "fault", [{"shape": (0, 1, 1)}, {"voxel_size_nm": (0, 1, 1)}, {"origin_nm": (float("nan"), 0, 0)}]
)
def test_impossible_grids_are_refused(fault: dict) -> None:
    good = {"shape": (1, 1, 1), "voxel_size_nm": (1, 1, 1), "origin_nm": (0, 0, 0)}
    with pytest.raises(ValueError, match="not"):
        Grid(**{**good, **fault})


def levels(*sizes: tuple[float, float, float]) -> list[Grid]:
    return [Grid((8, 8, 8), size, (0, 0, 0)) for size in sizes]


@pytest.mark.parametrize(
    ("wanted", "level", "exact", "upsampled"),
    [
        ((8, 8, 8), 1, True, False),  # there is such a level
        ((10, 10, 10), 1, False, False),  # the coarsest that loses nothing
        ((2, 2, 2), 0, False, True),  # finer than there is
        ((64, 64, 64), 2, False, False),
    ],
)
def test_the_level_that_fits(wanted: tuple, level: int, exact: bool, upsampled: bool) -> None:
    fit = fitting_level(levels((4, 4, 4), (8, 8, 8), (16, 16, 16)), wanted)
    assert (fit.level, fit.exact, fit.upsampled) == (level, exact, upsampled)


def test_anisotropic_em_is_upsampled_along_the_axes_where_it_is_coarser() -> None:
    fit = fitting_level(levels((3.48, 4, 4), (6.96, 8, 8)), (4, 4, 4))
    assert (fit.level, fit.exact, fit.upsampled) == (0, False, False)
    assert fitting_level(levels((3.48, 4, 4)), (3, 3, 3)).upsampled
