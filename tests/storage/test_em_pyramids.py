"""EM as it lies on disk: what is missing or outside is told."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.storage.em_pyramids import EM
from ensemble.storage.opening import em_place
from ensemble.support.errors import VolumeError
from tests.storage.test_placing import GRID as NAMED
from tests.storage.test_placing import VALUES, write
from tests.support.inference import CLASSES, a_volume, card, job, predicted
from tests.support.volumes import noise, write_em


def test_nothing_there_or_a_crop_outside_is_told(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    far = Target("1", "d", replace(grid, origin_nm=(9000, 0, 0)), CLASSES)
    with pytest.raises(VolumeError, match="lies outside the EM"):
        job(tmp_path, far, em, card())
    shutil.rmtree(tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0" / "0.0.0", ignore_errors=True)
    for file in (tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("[0-9]*"):
        file.unlink()
    with pytest.raises(VolumeError, match="none of the crop's EM is there"):
        job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    with pytest.raises(VolumeError, match="there is no such array"):
        job(tmp_path, Target("1", "other", grid, CLASSES), em, card())


def test_a_truncated_chunk_is_named(tmp_path, network) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    chunk = tmp_path / "d/d.zarr/recon-1/em/fibsem-uint8/s0" / "1.0.1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    with pytest.raises(VolumeError, match=r"s0: chunk 1\.0\.1 cannot be read"):
        predicted(one, em, network)


def test_levels_are_those_of_the_pyramid_finest_first(tmp_path) -> None:
    grids = [Grid((32 // n, 32 // n, 32 // n), (8 * n,) * 3, (4 * n,) * 3) for n in (1, 2, 4)]
    write_em(tmp_path, "d", [(noise(grid.shape), grid) for grid in grids])
    em = EM(tmp_path)
    assert list(em.levels("d")) == grids
    whole = grids[1].box
    assert em.tissue_box("d", 1, whole, whole) == whole
    assert em.tissue("d", 1, whole).volume.grid == grids[1]
    with pytest.raises(VolumeError, match="there is no such array"):
        em.levels("other")


@pytest.mark.parametrize("axes", ["xyz", "yzx"])
def test_em_of_axes_in_another_order_is_the_same_em(tmp_path, axes) -> None:
    place = Path(em_place(tmp_path, "d"))
    place.mkdir(parents=True)
    write(place, axes, "multiscales")
    em = EM(tmp_path)
    assert list(em.levels("d")) == [NAMED]
    assert em.tissue_box("d", 0, NAMED.box, NAMED.box.grown((3, 3, 3))) == NAMED.box
    assert np.array_equal(em.tissue("d", 0, NAMED.box).read(NAMED.box), VALUES)
