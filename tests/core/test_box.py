"""The arithmetic of boxes, against masks of a NumPy array whose voxel 0 stands for voxel -OFFSET."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.box import Box, zyx

OFFSET = 12
SIDE = 2 * OFFSET + 4


@st.composite
def boxes(draw: st.DrawFn, low: int = -6, high: int = 8) -> Box:
    """Boxes, empty ones too, along each axis anywhere from ``low`` to ``high``."""
    bounds = [sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high)))) for _ in range(3)]
    return Box(zyx(a for a, _ in bounds), zyx(b for _, b in bounds))


CHUNKS = st.tuples(*[st.integers(1, 5)] * 3)


def mask(box: Box) -> np.ndarray:
    """Which voxels lie in a box, each bound compared with the place of the voxel."""
    places = np.indices((SIDE,) * 3) - OFFSET
    return np.logical_and.reduce([(p >= a) & (p < b) for p, a, b in zip(places, box.start, box.stop, strict=True)])


@given(boxes())
def test_shape_and_size_count_the_voxels_and_indices_name_them_in_c_order(box):
    inside = mask(box)
    assert box.size == inside.sum() == np.prod(box.shape)
    assert list(box.indices()) == [tuple(place) for place in np.argwhere(inside) - OFFSET]
    assert [len(box.along(axis)) for axis in range(3)] == list(box.shape)
    assert Box.at(box.start, box.shape) == box


@given(boxes(0))
def test_its_slices_are_its_voxels(box):
    values = np.zeros((SIDE,) * 3, bool)
    values[box.shifted((OFFSET,) * 3).slices] = True
    assert np.array_equal(values, mask(box))


@given(boxes(), boxes())
def test_the_intersection_is_what_lies_in_both(first, second):
    both = first.intersect(second)
    assert np.array_equal(mask(both), mask(first) & mask(second))
    assert first.meets(second) == second.meets(first) == bool((mask(first) & mask(second)).any())
    assert both.within(first)
    assert all(a <= b <= c for a, b, c in zip(first.start, both.start, first.stop, strict=True))


@given(boxes(), boxes())
def test_one_lies_within_another_where_all_its_voxels_do(first, second):
    assert first.within(second) == (not (mask(first) & ~mask(second)).any())


@given(boxes(), boxes())
def test_the_union_is_the_smallest_box_around_both(first, second):
    around = first.union(second)
    assert not (mask(first) & ~mask(around)).any()
    assert not (mask(second) & ~mask(around)).any()
    assert around.start == tuple(map(min, first.start, second.start))
    assert around.stop == tuple(map(max, first.stop, second.stop))


@given(boxes(), st.tuples(*[st.integers(-4, 4)] * 3))
def test_a_shifted_box_is_the_same_elsewhere(box, by):
    assert np.array_equal(mask(box.shifted(by)), np.roll(mask(box), by, axis=(0, 1, 2)))
    assert box.shifted(by).relative_to(Box.at(by, (1, 1, 1))) == box


@given(boxes(), boxes())
def test_a_relative_box_indexes_the_array_that_holds_the_other(inner, outer):
    inner = inner.intersect(outer)
    values = np.indices((SIDE,) * 3)[:, *outer.shifted((OFFSET,) * 3).slices]
    cut = values[:, *inner.relative_to(outer).slices] - OFFSET
    assert [tuple(place) for place in cut.reshape(3, -1).T] == list(inner.indices())


@given(boxes(), st.integers(0, 3), st.tuples(*[st.integers(0, 3)] * 3))
def test_a_grown_box_reaches_a_margin_further_on_both_sides(box, margin, margins):
    assert box.grown(margin) == box.grown((margin,) * 3)
    assert box.grown(margins).grown(tuple(-m for m in margins)) == box
    assert box.grown(margins).shape == tuple(n + 2 * m for n, m in zip(box.shape, margins, strict=True))


@given(boxes(), CHUNKS)
def test_the_chunks_are_those_that_hold_a_voxel_of_it(box, chunk):
    touched = {tuple(place // np.array(chunk)) for place in np.argwhere(mask(box)) - OFFSET}
    assert set(box.to_chunks(chunk).indices()) == touched
    whole = box.whole_chunks(chunk)
    assert box.within(whole)
    assert whole == box.to_chunks(chunk).of_chunks(chunk)
    assert all(a % n == 0 and b % n == 0 for a, b, n in zip(whole.start, whole.stop, chunk, strict=True))


@given(boxes(), CHUNKS)
def test_tiles_cover_every_voxel_once_in_c_order(box, tile):
    covered = np.zeros((SIDE,) * 3, int)
    tiles = list(box.tiles(tile))
    for part in tiles:
        assert part.size > 0
        assert all(n <= most for n, most in zip(part.shape, tile, strict=True))
        covered[part.shifted((OFFSET,) * 3).slices] += 1
    assert np.array_equal(covered, mask(box))
    assert [part.start for part in tiles] == sorted(part.start for part in tiles)


@given(boxes(), st.integers(0, 2))
def test_other_bounds_along_one_axis_leave_the_others(box, axis):
    other = box.with_axis(axis, 2, 5)
    assert [other.along(a) for a in range(3)] == [range(2, 5) if a == axis else box.along(a) for a in range(3)]


def test_a_box_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="no earlier than it begins"):
        Box((0, 0, 5), (4, 4, 4))


def test_three_axes_no_more_no_fewer():
    with pytest.raises(ValueError, match="values to unpack"):
        Box((0, 0), (1, 1))
    with pytest.raises(ValueError, match="values to unpack"):
        Box.of_shape((1, 2, 3, 4))


def test_an_empty_box_has_no_tile_no_chunk_and_lies_in_any():
    empty = Box((3, 0, 0), (3, 4, 4))
    assert empty.size == 0
    assert not list(empty.tiles((2, 2, 2)))
    assert not list(empty.to_chunks((2, 2, 2)).indices())
    assert empty.within(Box((9, 9, 9), (10, 10, 10)))
    assert not empty.meets(Box.of_shape((9, 9, 9)))
