"""Objects by the power of two of their size."""

import numpy as np

from ensemble.methods.sizes import add_sizes_nm3, count_sizes_nm3, size_histogram


def test_objects_are_counted_by_the_power_of_two_of_their_size():
    assert size_histogram(np.array([1, 2, 3, 4, 7, 8])) == {"0": 1, "1": 2, "2": 2, "3": 1}
    total = {"3": 1}
    add_sizes_nm3(total, {"0": 2, "4": 1}, (2, 2, 2))
    assert total == {"3": 3, "7": 1}
    total = {}
    count_sizes_nm3(total, np.array([1, 100, 150]), (1.74, 2, 2))  # 6.96, 696 and 1044 nm3
    assert total == {"2": 1, "9": 1, "10": 1}
