"""A pass of a network over a crop, before anything is read."""

import numpy as np
import pytest

from ensemble.core.manifest import Target
from ensemble.plan.job import FORWARD_PASSES
from tests.support.inference import CLASSES, a_volume, card, job


def test_octahedral_needs_cubes(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (32, 32, 32))
    with pytest.raises(Exception, match="use mirror"):
        job(tmp_path, Target("1", "d", grid, CLASSES), em, card(), tta="octahedral")


def test_patches_of_a_job_cover_its_lattice_and_are_counted(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (40, 60, 70))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card(overlap=0.25), tta="mirror")
    covered = np.zeros(one.lattice.shape, int)
    for z in one.starts[0]:
        for y in one.starts[1]:
            for x in one.starts[2]:
                covered[z : z + one.patch[0], y : y + one.patch[1], x : x + one.patch[2]] += 1
    assert covered.all()
    assert one.patches == np.prod([len(along) for along in one.starts])
    assert one.forward_passes == 8 * one.patches == FORWARD_PASSES["mirror"] * one.patches
    assert one.lattice.sub(one.needed).size == grid.size == one.stored_bytes / 3
