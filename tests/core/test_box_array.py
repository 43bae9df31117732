"""An array in memory is read and written by boxes."""

import numpy as np

from ensemble.core.box import Box
from ensemble.core.box_array import MemoryArray

BOX = Box((1, 0, 2), (3, 4, 5))


def test_a_box_is_read_where_it_lies():
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert np.array_equal(MemoryArray(values)[BOX], values[1:3, 0:4, 2:5])


def test_a_box_is_written_where_it_lies_and_nowhere_else():
    array = MemoryArray.zeros((4, 5, 6), np.uint8)
    array[BOX] = np.full(BOX.shape, 7, np.uint8)
    assert np.argwhere(array.values == 7).tolist() == [list(place) for place in BOX.indices()]
    assert array.values.dtype == np.uint8
