"""Wrong input to a build is one line that says what to do, before or as it is met."""

from pathlib import Path

import numpy as np
import pytest

from ensemble.core.grid import Grid
from tests.support.small_build import BUILD, RECIPE, edit, wrong
from tests.support.volumes import write_array


def test_wrong_input_is_one_line_that_says_what_to_do(place, capsys) -> None:
    edit("small.yaml", "source: coarse,", "source: fine,")
    line = wrong(capsys, *BUILD)
    assert "small.yaml:11: classes.nuc.source: nuc is routed to fine, which predicts only mito" in line
    Path("small.yaml").write_text(RECIPE.replace("models:/coarse@", "models:/corse@"))
    assert "small.yaml:4: sources.coarse" in wrong(capsys, *BUILD)
    assert "did you mean 'coarse'?" in wrong(capsys, *BUILD)
    Path("small.yaml").write_text(RECIPE)
    assert "there is no such recipe" in wrong(capsys, "build", "smal.yaml")
    edit("manifest.csv", "class_label", "class")
    assert "manifest.csv:1: the manifest lacks the column 'class_label'" in wrong(capsys, *BUILD)


def test_a_crop_outside_the_em_and_em_that_is_missing(place, capsys) -> None:
    text = Path("manifest.csv").read_text()
    Path("manifest.csv").write_text(text.replace("[22.0;82.0;82.0]", "[9022.0;82.0;82.0]"))
    assert "lies outside the EM" in wrong(capsys, *BUILD)
    Path("manifest.csv").write_text(text.replace(",d,", ",elsewhere,"))
    assert "elsewhere.zarr/recon-1/em/fibsem-uint8: there is no such array" in wrong(capsys, *BUILD)


def test_a_truncated_chunk_of_em_and_one_of_predictions(place, capsys) -> None:
    chunk = next((place / "data/d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("1.1.1"))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:30])
    assert "chunk 1.1.1 cannot be read" in wrong(capsys, *BUILD)
    chunk.write_bytes(whole)
    theirs = place / "data/theirs/d.zarr/crop2/ecs/0.0.0"
    theirs.write_bytes(theirs.read_bytes()[:30])
    assert "crop2/ecs: chunk 0.0.0 cannot be read" in wrong(capsys, *BUILD)


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "voxels are NaN"), (3.0, "values run from"), (-0.1, "values run from")]
)
def test_predictions_that_are_no_probabilities(place, capsys, value: float, says: str) -> None:
    grid = Grid((16, 12, 14), (8, 8, 8), (36, 36, 36))
    p = np.full(grid.shape, 0.5, np.float32)
    p[3, 3, 3] = value
    write_array(place / "data/theirs/d.zarr/crop2/ecs", p, grid)
    assert says in wrong(capsys, *BUILD)


def test_predictions_that_do_not_cover_the_crop_or_cannot_be_placed(place, capsys) -> None:
    grid = Grid((16, 12, 9), (8, 8, 8), (36, 36, 36))
    folder = write_array(place / "data/theirs/d.zarr/crop2/ecs", np.zeros(grid.shape, np.float32), grid)
    assert "short of crop 2 along x" in wrong(capsys, *BUILD)
    (folder / ".zattrs").write_text("{}")
    assert "lack voxel_size and translation" in wrong(capsys, *BUILD)
