"""A job in parts: each voxel is computed once, of just the patches that the whole job would give it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan.job import Job
from ensemble.plan.parts import cut_that_fits, device_bytes_of, parts_of, slabs_for
from tests.support.inference import a_volume, card, job


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[float, Job]:
    """A crop of all 8 nm EM there is by its own voxel size; as 0 one inside it, over which patches are spread."""
    folder = tmp_path_factory.mktemp("volume")
    _, grid, em = a_volume(folder, (150, 300, 40))
    found = {}
    for nm in (8, 6, 20):
        shape = tuple(n * 8 // nm for n in grid.shape)
        target = Target("1", "d", Grid(shape, (nm,) * 3, grid.origin_nm), ("mito", "nuc"))
        found[nm] = job(folder, target, em, card(patch_voxels=16))
    inner = Target("1", "d", grid.sub(Box((4, 30, 3), (138, 260, 30))), ("mito", "nuc"))
    found[0] = job(folder, inner, em, card(patch_voxels=16))
    assert len({b - a for a, b in pairwise(found[0].starts[1])}) > 1
    return found


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("wide")
    _, grid, em = a_volume(folder, (20, 300, 300))
    return job(folder, Target("1", "d", grid, ("mito", "nuc")), em, card(patch_voxels=16))


def places(one: Job, origin: Grid) -> tuple[set, set, set]:
    """Where patches start, in voxels of another lattice."""
    z, y, x = (
        {round(origin.position_voxels(axis, one.lattice.origin_nm[axis])) + at for at in one.starts[axis]}
        for axis in range(3)
    )
    return z, y, x


@given(nm=st.sampled_from([8, 6, 20, 0]), cut=st.tuples(st.integers(1, 5), st.integers(1, 3)), slabs=st.integers(1, 9))
def test_parts_cover_what_is_stored_once_with_the_patches_of_the_whole(jobs, nm, cut, slabs) -> None:
    one = jobs[nm]
    covered = np.zeros(one.stored.shape, int)
    for part in parts_of(one, cut, slabs):
        covered[part.box.slices] += 1
        assert part.job.stored == one.stored.sub(part.box)
        assert part.job.needed.within(part.job.lattice.box)
        needed = part.job.lattice.sub(part.job.needed)
        for axis in range(3):
            mine, theirs = places(part.job, one.lattice)[axis], set(one.starts[axis])
            low = round(one.lattice.position_voxels(axis, needed.origin_nm[axis]))
            touching = {at for at in theirs if at < low + needed.shape[axis] and at + one.patch[axis] > low}
            assert mine == touching
            assert max(part.job.starts[axis]) + one.patch[axis] == part.job.lattice.shape[axis]
    assert (covered == 1).all()


def test_one_part_is_the_job(jobs) -> None:
    (part,) = parts_of(jobs[8])
    assert (part.job, part.box) == (jobs[8], jobs[8].stored.box)


def test_sums_are_cut_no_further_than_needed(jobs) -> None:
    one = jobs[8]
    assert cut_that_fits(one, device_bytes_of(one)) == (1, 1)
    assert cut_that_fits(one, device_bytes_of(one) - 1) == (2, 1)
    assert cut_that_fits(one, 1000) is None
    least = max(device_bytes_of(part.job) for part in parts_of(one, (3, 1)))
    assert cut_that_fits(one, least) <= (3, 1)


def test_large_planes_are_cut_both_ways(wide: Job) -> None:
    half = max(device_bytes_of(part.job) for part in parts_of(wide, (2, 2)))
    assert cut_that_fits(wide, half) == (2, 2)
    finest = max(device_bytes_of(part.job) for part in parts_of(wide, (3, 3)))
    assert cut_that_fits(wide, finest) == (3, 3)
    assert cut_that_fits(wide, finest - 1) is None


def test_slabs_are_for_several_devices_and_thick(jobs) -> None:
    one = jobs[8]
    assert slabs_for([one], 1) == {one.identity: 1}
    slabs = slabs_for([one], 4)[one.identity]
    assert 1 < slabs <= len(one.starts[0]) // 4
