"""Filters of objects, told by a table of their sizes, peaks and borders."""

import numpy as np

from ensemble.methods.objects import ObjectTable
from ensemble.methods.steps import drop_at_border, drop_small, fill_holes, hysteresis, keep_largest


def table(sizes: list[int], peaks: list[float] | None = None, border: list[bool] | None = None) -> ObjectTable:
    n = len(sizes)
    box = np.zeros((n, 3), np.int64)
    return ObjectTable(
        np.array(sizes),
        box,
        box + 1,
        np.array(border or [False] * n),
        np.array(peaks or [0.0] * n, np.float32),
        voxel_volume_nm3=8.0,
    )


def test_drop_small_keeps_objects_of_exactly_the_minimum() -> None:
    assert drop_small(table([9, 10, 11]), min_size_voxels=10).tolist() == [False, True, True]
    assert drop_small(table([9, 10, 11]), min_size_nm3=80).tolist() == [False, True, True]


def test_keep_largest_takes_the_first_of_equals() -> None:
    assert keep_largest(table([5, 7, 7, 1]), count=2).tolist() == [False, True, True, False]
    assert keep_largest(table([7, 7]), count=1).tolist() == [True, False]


def test_hysteresis_keeps_what_exceeds_the_high_threshold_somewhere() -> None:
    assert hysteresis(table([5, 5], peaks=[0.8, 0.9]), high=0.8).tolist() == [False, True]


def test_drop_at_border() -> None:
    assert drop_at_border(table([5, 5], border=[True, False])).tolist() == [False, True]


def test_fill_holes_by_volume() -> None:
    assert fill_holes(table([10, 11]), max_size_nm3=80).tolist() == [True, False]
    assert fill_holes(table([10, 10**9])).tolist() == [True, True]
