"""Ids split into objects, against a flood of small random volumes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.scoring.objects import split_objects
from tests.support.brute_score import parts

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


@given(arrays(np.uint8, SHAPES, elements=st.integers(0, 3)))
@settings(max_examples=200)
def test_objects_are_numbered_in_scan_order(prediction):
    objects, count = split_objects(prediction)
    expected, number = parts(prediction)
    assert count == number
    assert np.array_equal(objects, expected)
