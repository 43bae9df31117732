"""Ids over ids, against loops over sets of voxels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.methods.overlaps import Overlaps

LABELS = arrays(np.uint32, (4, 3, 5), elements=st.integers(0, 4))


@settings(max_examples=200)
@given(LABELS, LABELS, st.integers(1, 3), st.permutations(range(5)))
def test_objects_are_the_same_where_most_of_both_is(a, b, cut, renumbered) -> None:
    b = np.where(a % 2 == 1, np.array(renumbered)[a], b).astype(np.uint8)  # some objects under other numbers
    found = Overlaps()
    for block in (slice(0, cut), slice(cut, None)):
        found.add(a[block], b[block])
    ids = [set(np.unique(side).tolist()) - {0} for side in (a, b)]
    assert found.objects == (len(ids[0]), len(ids[1]))
    same = {
        j: i for i in ids[0] for j in ids[1] if 2 * np.sum((a == i) & (b == j)) > np.sum((a == i) | (b == j))
    }  # fmt: skip
    assert found.matches == same
    moved = sum(same.get(int(j), 0) != i for i, j in zip(a.ravel(), b.ravel(), strict=True) if i and j)
    assert found.moved_voxels == moved


def test_nothing_over_nothing() -> None:
    found = Overlaps()
    assert (found.objects, found.matches, found.moved_voxels) == ((0, 0), {}, 0)
    found.add(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8))
    assert (found.objects, found.matches, found.moved_voxels) == ((0, 0), {}, 0)
