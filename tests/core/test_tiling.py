"""Blocks, slabs and patches cover what they cut, and borders are mirrored as numpy does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.box import Box
from ensemble.core.tiling import blocks, chunk_shape, even_starts, patch_count, patch_starts, patch_step, reflect, slabs

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@given(SHAPES, SHAPES)
def test_blocks_cover_every_voxel_once_in_c_order(shape, block):
    covered = np.zeros(shape, int)
    for number, part in enumerate(blocks(shape, block), start=1):
        assert not covered[part.slices].any()
        covered[part.slices] = number
    assert covered.all()
    corners = [part.start for part in blocks(shape, block)]
    assert corners == sorted(corners)


def test_slabs_are_a_chunk_thick_and_the_last_is_what_is_left():
    assert [slab.along(0) for slab in slabs((130, 5, 6))] == [range(0, 64), range(64, 128), range(128, 130)]
    assert slabs((64, 5, 6)) == [Box.of_shape((64, 5, 6))]
    assert chunk_shape((70, 18, 200)) == (64, 18, 128)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, 0.25, 0.5, 0.9]))
def test_patches_cover_an_axis_and_overlap_at_least_as_asked(length, patch, overlap):
    if length < patch:
        with pytest.raises(ValueError, match="shorter than a patch"):
            patch_starts(length, patch, overlap)
        return
    starts = patch_starts(length, patch, overlap)
    assert (starts[0], starts[-1]) == (0, length - patch)
    steps = np.diff(starts)
    assert ((steps > 0) & (steps <= max(1, patch * (1 - overlap)))).all()
    assert len(starts) == patch_count(length, patch, overlap)
    assert (steps[:-1] == patch_step(patch, overlap)).all()


def test_an_axis_shorter_than_a_patch_takes_one():
    assert [patch_count(length, 8, 0.5) for length in (1, 7, 8, 9, 12, 13)] == [1, 1, 1, 2, 2, 3]


@given(st.integers(1, 20), st.integers(0, 60), st.integers(2, 20))
def test_patches_that_are_spread_reach_from_end_to_end_as_evenly_as_voxels_allow(patch, more, count):
    starts = even_starts(patch + more, patch, count)
    assert (len(starts), starts[0], starts[-1]) == (count, 0, more)
    steps = np.diff(starts)
    assert steps.max() - steps.min() <= 1
    assert even_starts(patch, patch, 1) == [0]


@given(st.integers(1, 7), st.integers(0, 20), st.integers(0, 20))
def test_beyond_a_border_indices_are_mirrored_as_numpy_mirrors(length, before, after):
    values = np.arange(length)
    expected = np.pad(values, (before, after), mode="reflect" if length > 1 else "edge")
    assert np.array_equal(values[reflect(np.arange(-before, length + after), length)], expected)
