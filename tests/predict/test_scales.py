"""Whole numbers far below what their type can hold are on another scale than is assumed."""

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.predict.probabilities import StoredProbabilities
from ensemble.predict.scales import is_far_below, refuse_other_scales
from ensemble.predict.stored_values import ArrayInMemory
from ensemble.support.errors import VolumeError

GRID = Grid((1, 1, 1), (8, 8, 8), (4, 4, 4))


def field(dtype: str, place: str = "p/a") -> StoredProbabilities:
    return StoredProbabilities(ArrayInMemory(np.zeros(GRID.shape, dtype), GRID, place), is_assumed=True)


@pytest.mark.parametrize(
    ("dtype", "value", "stands_for_1"),
    [
        ("uint8", 1, 1),
        ("uint8", 40, 100),
        ("uint16", 255, 255),
        ("uint16", 1000, 1000),
        ("uint16", 4000, 4095),
        ("uint16", 10_000, 10_000),
        ("uint32", 65_535, 65_535),
        ("uint64", 70_000, 70_000),
    ],
)
def test_a_source_on_another_scale_is_refused_with_the_ways_out(dtype, value, stands_for_1):
    assert is_far_below(value, np.dtype(dtype))
    with pytest.raises(VolumeError) as told:
        refuse_other_scales("theirs", [(field(dtype), 0), (field(dtype, "p/b"), value)])
    assert str(told.value).startswith(f"p/b: the highest value of source theirs is {value} where {dtype} goes up to ")
    for way in ("say labels: ", f"scale: {stands_for_1} in the source", "write floats from 0 to 1"):
        assert way in str(told.value)


@pytest.mark.parametrize("seen", [[], [0, 0], [255], [60], [1, 0, 255]])
def test_zeros_say_nothing_and_one_sure_array_speaks_for_its_source(seen):
    assert refuse_other_scales("theirs", [(field("uint8"), value) for value in seen]) is None


def test_arrays_of_another_type_do_not_speak_for_it():
    with pytest.raises(VolumeError, match="is 200 where uint16"):
        refuse_other_scales("theirs", [(field("uint8"), 200), (field("uint16"), 200)])
