"""What a plan's networks read, and little more: with it alone they answer the same."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan.needed_em import em_needed
from ensemble.storage.em_pyramids import EM
from tests.support.inference import CLASSES, a_volume, card, job, predicted, tiny_network

INNER, CORNER = Box((40, 30, 50), (48, 38, 60)), Box((0, 0, 116), (8, 12, 128))


@pytest.mark.parametrize("absent_is_zero", [False, True])
@pytest.mark.parametrize(("voxel_nm", "core"), [(8, CORNER), (6, CORNER), (12, INNER)])
def test_with_what_is_needed_alone_a_network_answers_the_same(tmp_path, absent_is_zero, voxel_nm, core):
    _, grid, _ = a_volume(tmp_path / "whole", (96, 64, 128))
    inside = grid.sub(core)
    shape = tuple(max(1, n * 8 // voxel_nm) for n in inside.shape)
    target = Target("1", "d", Grid(shape, (voxel_nm,) * 3, inside.origin_nm), CLASSES)
    em = EM(tmp_path / "whole", absent_is_zero=absent_is_zero)
    one = job(tmp_path, target, em, card(voxel_size_nm=voxel_nm))
    ((where, boxes),) = em_needed(SimpleNamespace(jobs=[one, one]), em).items()
    assert (where, len(boxes)) == (("d", 0), 1)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    kept = set(boxes[0].to_chunks((16, 16, 16)).indices())
    chunks = list((tmp_path / "part").rglob("s0/[0-9]*"))
    for path in chunks:
        if tuple(map(int, path.name.split("."))) not in kept:
            path.unlink()
    assert 0 < len(kept) < len(chunks) / 2
    part = EM(tmp_path / "part", absent_is_zero=absent_is_zero)
    other = job(tmp_path, target, part, card(voxel_size_nm=voxel_nm))
    assert (other.lattice, other.starts, other.tissue_box) == (one.lattice, one.starts, one.tissue_box)
    network = tiny_network()
    assert np.array_equal(predicted(other, part, network), predicted(one, em, network))
