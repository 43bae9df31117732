"""The stand-alone step: a tree of predictions in, a tree of processed arrays out."""

import json
from pathlib import Path

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from ensemble.build.standalone import postprocess
from ensemble.cli import main
from ensemble.core.grid import Grid
from ensemble.plan.budget import Budget
from ensemble.storage.opening import open_volume
from ensemble.support.progress import QuietProgress
from tests.support.volumes import write_array

GRID = Grid((70, 40, 44), (8, 8, 8), (4, 12, 20))


NESTED, FLAT = "d.zarr/crop7/{}", "d/crop7/{}/s0"


def touching_balls() -> np.ndarray:
    """Two mitochondria that touch across the slabs' border, and a speck."""
    z, y, x = np.indices(GRID.shape)
    first = (z - 56) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 81
    second = (z - 56) ** 2 + (y - 20) ** 2 + (x - 36) ** 2 <= 60
    p = np.where(first | second, 0.9, 0.1).astype(np.float32)
    p[5, 5, 5] = 0.9
    return p


def read(place: Path) -> np.ndarray:
    return np.asarray(open_volume(place).array[:])


@pytest.mark.parametrize("layout", [NESTED, FLAT])
@pytest.mark.parametrize(("method", "objects"), [("binary", 1), ("components", 1), ("watershed", 2)])
def test_methods_label_the_instance_classes_and_keep_metadata(tmp_path, layout, method, objects) -> None:
    p = touching_balls()
    write_array(tmp_path / "in" / layout.format("mito"), p, GRID)
    write_array(tmp_path / "in" / layout.format("er"), (p * 255).astype(np.uint8), GRID)
    assert main(["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", method]) == 0
    out = tmp_path / "out" / layout.format("mito")
    labels = read(out)
    kept = p > 0.5
    if method != "binary":
        kept[5, 5, 5] = False  # fewer voxels than the guide's minimum
    assert np.array_equal(labels > 0, kept)
    assert labels.max() == objects
    attributes = json.loads((out / ".zattrs").read_text())
    assert attributes == {"voxel_size": [8.0, 8.0, 8.0], "translation": [4.0, 12.0, 20.0]}
    assert np.array_equal(read(tmp_path / "out" / layout.format("er")), p > 0.5)


@pytest.mark.parametrize(
    ("dtype", "value"), [("bool", 1), ("uint8", 1), ("uint8", 255), ("uint16", 255), ("int64", 1), ("float32", 1)]
)
def test_a_mask_is_one_whatever_its_type_and_value(tmp_path, dtype, value) -> None:
    ball = touching_balls() > 0.5
    write_array(tmp_path / "in" / NESTED.format("mito"), ball.astype(dtype) * np.dtype(dtype).type(value), GRID)
    write_array(tmp_path / "in" / NESTED.format("er"), np.zeros(GRID.shape, dtype), GRID)
    assert main(["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "binary"]) == 0
    assert np.array_equal(read(tmp_path / "out" / NESTED.format("mito")), ball)
    assert not read(tmp_path / "out" / NESTED.format("er")).any()


@pytest.mark.parametrize(
    ("dtype", "values"), [("uint8", (1, 2)), ("uint16", (200, 255)), ("int16", (1, 2)), ("int8", (-1, 0))]
)
def test_whole_numbers_that_are_neither_masks_nor_probabilities_are_refused(tmp_path, capsys, dtype, values) -> None:
    data = np.zeros(GRID.shape, dtype)
    data[:9], data[9:30] = values
    write_array(tmp_path / "in" / NESTED.format("mito"), data, GRID)
    assert main(["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "binary"]) == 2
    assert f"mito: its {'highest value is' if dtype[0] == 'u' else 'type'} " in capsys.readouterr().err
    assert not (tmp_path / "out" / NESTED.format("mito")).exists()


def test_an_array_of_axes_x_y_z_becomes_one_of_z_y_x(tmp_path) -> None:
    ball = touching_balls() > 0.5
    turned = Grid(GRID.shape[::-1], GRID.voxel_size_nm[::-1], GRID.origin_nm[::-1])
    place = write_array(tmp_path / "in" / NESTED.format("mito"), ball.transpose().astype("u1"), turned)
    attributes = json.loads((place / ".zattrs").read_text())
    (place / ".zattrs").write_text(json.dumps({**attributes, "axis_names": ["x", "y", "z"], "by": "me"}))
    assert main(["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "binary"]) == 0
    out = open_volume(tmp_path / "out" / NESTED.format("mito"))
    assert (out.grid, out.array.attrs["by"]) == (GRID, "me")
    assert np.array_equal(out.read(GRID.box), ball)


def test_thresholds_and_sizes_come_from_the_recipe(tmp_path) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(GRID.shape), 2)
    p = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    write_array(tmp_path / "in" / NESTED.format("ves"), p, GRID)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nsources: {m: {model: 'models:/m@a'}}\ndefaults: {source: m}\n"
        "classes: {ves: {threshold: 0.6, postprocess: [{drop_small: {min_size_voxels: 90}}]}}\n"
    )
    arguments = ["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "components"]
    assert main([*arguments, "--recipe", str(recipe)]) == 0
    labels = read(tmp_path / "out" / NESTED.format("ves"))
    parts = cc3d.connected_components(p > np.float32(0.6), connectivity=26)
    sizes = np.bincount(parts.ravel())
    expected = np.isin(parts, np.flatnonzero(sizes >= 90)[1:])
    assert np.array_equal(labels > 0, expected)
    assert labels.max() == (sizes[1:] >= 90).sum()


def test_a_tree_without_predictions_and_an_array_without_a_place_are_told(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    arguments = ["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "watershed"]
    assert main(arguments) == 2
    assert "no array at" in capsys.readouterr().err
    place = write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)
    (place / ".zattrs").write_text("{}")
    assert main(arguments) == 2
    assert "lack voxel_size and translation" in capsys.readouterr().err
    assert not (tmp_path / "out" / NESTED.format("mito")).exists()


def test_what_is_complete_is_not_done_again(tmp_path) -> None:
    write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)

    def done() -> int:
        budget = Budget(2 << 30, 2)
        return postprocess(
            tmp_path / "in", tmp_path / "out", "watershed", recipe=None, budget=budget, progress=QuietProgress()
        )

    assert done() == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/*")}
    assert done() == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/*")} == before


def made(tmp_path: Path, method: str, capsys: pytest.CaptureFixture, **recipe: str) -> str:
    """What a run of the command says on stderr."""
    more = [f"--{key}={value}" for key, value in recipe.items()]
    assert main(["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", method, *more]) == 0
    return capsys.readouterr().err


def test_an_array_of_another_method_recipe_or_input_is_made_anew_and_that_is_said(tmp_path, capsys) -> None:
    place = write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)
    out = tmp_path / "out" / NESTED.format("mito")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nsources: {m: {model: 'models:/m@a'}}\ndefaults: {source: m}\nclasses: {mito: {threshold: 0.95}}\n"
    )
    assert "anew" not in made(tmp_path, "watershed", capsys)
    assert read(out).max() == 2
    for method, options, objects in (
        ("components", {}, 1),
        ("binary", {}, 1),
        ("watershed", {}, 2),
        ("watershed", {"recipe": str(recipe)}, 0),
        ("watershed", {}, 2),
    ):
        assert f"{out}: was made of other predictions or by other rules; it is made anew" in made(
            tmp_path, method, capsys, **options
        )
        assert read(out).max() == objects
        assert "anew" not in made(tmp_path, method, capsys, **options)
    write_array(place, np.zeros(GRID.shape, np.float32), GRID)
    assert "anew" in made(tmp_path, "watershed", capsys)
    assert not read(out).any()


def test_an_array_that_somebody_else_made_is_refused_and_kept(tmp_path, capsys) -> None:
    write_array(tmp_path / "in" / NESTED.format("er"), touching_balls(), GRID)
    write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)
    theirs = write_array(tmp_path / "out" / NESTED.format("mito"), touching_balls(), GRID)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    for out in (tmp_path / "out", tmp_path / "in"):
        assert main(["postprocess", str(tmp_path / "in"), str(out), "--method", "binary"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "was not made here; move it away, or give another folder than" in line
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out" / NESTED.format("er")).exists()


def test_an_array_that_was_begun_is_made_anew(tmp_path, capsys) -> None:
    write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)
    made(tmp_path, "binary", capsys)
    whole = (tmp_path / "out/.postprocessed").read_bytes()
    begun, finished = whole.splitlines(keepends=True)
    for left in (begun, begun + finished[:-9]):
        (tmp_path / "out/.postprocessed").write_bytes(left)
        assert "anew" not in made(tmp_path, "binary", capsys)
        assert (tmp_path / "out/.postprocessed").read_bytes() == begun * 2 + finished


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((10**6,) * 3, "has more than 1,099,511,627,776 voxels"),
        ((2**40, 1, 1), "chunks of [64, 128, 128]"),
        ((64, 2**16, 2**16), "--memory 2: assembling crop 7 needs about"),
    ],
)
def test_an_array_of_a_huge_shape_is_refused_however_little_is_in_it(tmp_path, capsys, shape, says) -> None:
    place = write_array(tmp_path / "in" / NESTED.format("mito"), touching_balls(), GRID)
    metadata = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps({**metadata, "shape": shape}))
    arguments = ["postprocess", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "components", "--memory", "2"]
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
