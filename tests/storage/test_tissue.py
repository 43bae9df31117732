"""Where EM is not there it ends, or is mirrored, and a person is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.predict.predictor import tissue_of
from ensemble.storage.em_pyramids import EM
from ensemble.storage.opening import open_volume
from ensemble.storage.tissue import find_tissue
from tests.support.inference import CLASSES, a_volume, card, job, predicted
from tests.support.volumes import noise, write_array, write_em


def test_em_that_is_not_there_ends_it_like_its_border(tmp_path, network) -> None:
    array, grid, _ = a_volume(tmp_path / "whole", (64, 64, 64))
    crop = grid.sub(Box((20, 20, 20), (40, 40, 40)))
    target = Target("1", "d", crop, CLASSES)
    part = array[16:48, :48, 16:]  # what remains when other chunks are absent
    cut = Grid(part.shape, grid.voxel_size_nm, grid.sub(Box((16, 0, 16), (48, 48, 64))).origin_nm)
    write_em(tmp_path / "cut", "d", [(part, cut)])
    place = Path(tmp_path / "whole/d/d.zarr/recon-1/em/fibsem-uint8/s0")
    for file in place.iterdir():
        if not file.name.startswith("."):
            z, y, x = map(int, file.name.split("."))
            if not (1 <= z < 3 and y < 3 and x >= 1):
                file.unlink()
    a, b = EM(tmp_path / "whole"), EM(tmp_path / "cut")
    jobs = [job(tmp_path, target, e, card()) for e in (a, b)]
    assert jobs[0].lattice.matches(jobs[1].lattice)
    assert np.array_equal(predicted(jobs[0], a, network), predicted(jobs[1], b, network))


def test_a_hole_in_the_crop_is_mirrored_from_its_neighbour_and_told(tmp_path, network) -> None:
    array, grid, em = a_volume(tmp_path, (48, 48, 48))
    place = tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0"
    (place / "1.1.1").unlink()
    target = Target("1", "d", grid, CLASSES)
    one = job(tmp_path, target, em, card())
    assert any("never written" in line for line in tissue_of(em, one).warnings(grid))
    block = tissue_of(em, one).read(grid.box)
    assert (block[16:32, 16:32, 16:32] > 0).all()
    assert np.array_equal(block[:16], array[:16])
    black = EM(tmp_path, absent_is_zero=True)
    hole = Box((16, 16, 16), (32, 32, 32))
    assert not tissue_of(black, job(tmp_path, target, black, card())).read(hole).any()


@pytest.mark.parametrize("box", [Box((-5, 0, 0), (9, 48, 48)), Box((40, -70, 47), (60, 3, 100))])
def test_beyond_its_border_tissue_is_mirrored_as_numpy_mirrors(tmp_path, box) -> None:
    grid = Grid((48, 48, 48), (8, 8, 8), (4, 4, 4))
    values = noise(grid.shape)
    found = find_tissue(open_volume(write_array(tmp_path / "a", values, grid)), grid.box, grid.box)
    assert found.box == grid.box
    assert found.absent_chunks() == 0
    margin = 100
    mirrored = np.pad(values, margin, mode="reflect")
    assert np.array_equal(found.read(box), mirrored[box.shifted((margin,) * 3).slices])


def test_what_is_not_certain_of_where_the_em_lies_is_told(tmp_path) -> None:
    grid = Grid((16, 16, 16), (8, 8, 8), (4, 4, 4))
    volume = open_volume(write_array(tmp_path / "a", noise(grid.shape), grid))
    assert find_tissue(volume, grid.box, grid.box).warnings(grid) == []
    doubtful = replace(volume, doubt="a: who knows")
    assert find_tissue(doubtful, grid.box, grid.box).warnings(grid) == ["a: who knows"]
