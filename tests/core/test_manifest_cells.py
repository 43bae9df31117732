"""Cells of a manifest: what is read is what everybody else reads, the rest is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.grid import Grid
from ensemble.core.manifest_cells import crop_name, dataset_name, grid, too_large


@pytest.mark.parametrize(("cell", "name"), [("557", "557"), ("crop557", "557"), ("my_crop-2", "my_crop-2"), ("0", "0")])
def test_names_of_crops(cell: str, name: str) -> None:
    assert crop_name(cell) == name


WRONG_CROPS = ["557.0", "5.57e2", "557e0", "1e3", "nan", "inf", "-557", "0557", "00", "1_000", "５５７"]
WRONG_CROPS += [
    "Crop557",
    "CROP557",
    "cropcrop557",
    "",
    "crop",
    ".",
    "..",
    "a/b",
    "a.b",
    "５５７",
    "a b",
    "ä",
    "a" * 101,
]


@pytest.mark.parametrize("cell", WRONG_CROPS)
def test_names_nobody_else_would_find(cell: str) -> None:
    with pytest.raises(ValueError, match=f"^crop_name {cell!r} "):
        crop_name(cell)


@given(st.text(max_size=8))
def test_a_name_that_is_taken_stays_a_name_of_one_folder(cell: str) -> None:
    try:
        name = crop_name(cell)
    except ValueError:
        return
    assert crop_name(f"crop{name}") == crop_name(name) == name
    assert name.isascii()
    assert not set("/\\. ") & set(name)


@pytest.mark.parametrize("cell", ["", ".", "..", "../other", "a/b", "a\\b", ".hidden", " ", "a\x00b", "d" * 201])
def test_a_data_set_is_one_folder_of_the_data(cell: str) -> None:
    with pytest.raises(ValueError, match="not the name of a folder of data"):
        dataset_name(cell)
    assert dataset_name("jrc_hela-2.v1") == "jrc_hela-2.v1"


PLACED = {"voxel_size": "[1.74;2.0;2.0]", "translation": "[23837.13;-7.5;0]", "shape": "[60;70;80]"}


@pytest.mark.parametrize("brackets", [True, False])
def test_a_grid_is_read_to_the_last_digit(brackets: bool) -> None:
    cells = {column: cell if brackets else cell.strip("[]") for column, cell in PLACED.items()}
    assert grid(**cells) == Grid((60, 70, 80), (1.74, 2.0, 2.0), (23837.13, -7.5, 0.0))


WRONG_NUMBERS = ["[1;2;3", "1;2;3]", "[[1;2;3]]", "[1;2]", "[1;2;3;4]", "[1,2,3]", "[a;2;3]", "[1_0;2;3]", "[1;;3]", ""]
WRONG_NUMBERS += ["[nan;1;1]", "[inf;1;1]", "[1e999;1;1]", "[1.2.3;1;1]", "[١;1;1]"]


@pytest.mark.parametrize("column", PLACED)
@pytest.mark.parametrize("cell", WRONG_NUMBERS)
def test_what_is_no_three_numbers_is_told_by_column(column: str, cell: str) -> None:
    with pytest.raises(ValueError, match=f"^{column}"):
        grid(**(PLACED | {column: cell}))


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("shape", "[60;70;8.5]", "whole numbers"),
        ("shape", "[0;70;80]", "at least 1"),
        ("shape", "[20000;20000;20000]", "1,099,511,627,776 voxels"),
        ("voxel_size", "[0;2;2]", "positive"),
        ("voxel_size", "[-1;2;2]", "positive"),
        ("voxel_size", "[1e7;2;2]", "under 10 cm"),
        ("translation", "[1e300;0;0]", "10 cm away"),
    ],
)
def test_numbers_that_are_no_grid(column: str, cell: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        grid(**(PLACED | {column: cell}))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((10**18, 1, 1), "voxels"),
        ((2**20, 2**20, 2), "voxels"),
        ((1, 1, 2**39), "chunks"),
        ((1, 2**19, 2**19), "chunks"),
        ((10**4, 10**4, 10**4), ""),
        ((1, 1, 1), ""),
    ],
)
def test_a_crop_that_nobody_can_work_on_is_told_from_one_that_is_large(shape: tuple, says: str) -> None:
    assert says in too_large(shape)
    assert bool(says) == bool(too_large(shape))
    cells = "[1e-5;1e-5;1e-5]", "[0;0;0]", f"[{';'.join(map(str, shape))}]"
    if says:
        with pytest.raises(ValueError, match=r"no extent|cut the crop into several"):
            grid(*cells)
    else:
        assert grid(*cells).shape == shape
