"""A grid is settled by all that is told of it: what is missing or told in two ways is refused."""

import pytest

from ensemble.core.grid import Grid
from ensemble.storage.given_grid import Claim, GivenGrid, settled
from ensemble.support.errors import VolumeError

CROP = Grid((10, 20, 30), (8, 4, 4), (104, 52, 32))
SHAPE = (10, 20, 30)
NO = GivenGrid()


def test_where_the_first_voxel_begins_is_half_a_voxel_before_its_centre() -> None:
    claims = [Claim("resolution", (40, 4, 2)), Claim("offset", corner_nm=(400, 40, 20))]
    assert settled(claims, SHAPE, NO, CROP, "p") == Grid(SHAPE, (40, 4, 2), (420, 42, 21))


def test_the_source_fills_in_what_the_file_does_not_say() -> None:
    found = settled([Claim("element_size_um", (40, 4, 2))], SHAPE, GivenGrid(origin_nm=(1, 2, 3)), CROP, "p")
    assert found == Grid(SHAPE, (40, 4, 2), (1, 2, 3))


def test_an_array_of_just_the_crop_lies_as_it_does_also_in_larger_voxels() -> None:
    assert settled([], SHAPE, GivenGrid(is_crop=True), CROP, "p") == CROP
    coarse = settled([], (5, 10, 15), GivenGrid((16, 8, 8), is_crop=True), CROP, "p")
    assert coarse == Grid((5, 10, 15), (16, 8, 8), (108, 54, 34)) and coarse.corner_nm == CROP.corner_nm


@pytest.mark.parametrize(
    ("claims", "given", "message"),
    [
        ([], NO, "p: nothing says its voxel size and origin; say grid: "),
        ([Claim("element_size_um", (8, 4, 4))], NO, "p: nothing says its origin; say grid: "),
        ([Claim("offset", corner_nm=(0, 0, 0))], NO, "p: nothing says its voxel size; say grid: "),
        ([Claim("a", (8, 4, 4)), Claim("b", (4, 4, 8))], NO, r"a says voxels of \[8, 4, 4\] nm .* but b \[4, 4, 8\]"),
        ([Claim("a", (8, 4, 4))], GivenGrid((8, 8, 8), (0, 0, 0)), "a says voxels of .* but grid in the source"),
        ([Claim("a", (8, 4, 4), (104, 52, 33))], GivenGrid(is_crop=True), "a says its first voxel's centre at"),
        ([Claim("a", (8e6, 4, 4), (0, 0, 0))], NO, "nm large; write nm, or say its units"),
        ([], GivenGrid((4, 4, 4), is_crop=True), r"are not just the crop of \[10, 20, 30\] voxels"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused(claims, given, message) -> None:
    with pytest.raises(VolumeError, match=message):
        settled(claims, SHAPE, given, CROP, "p")
