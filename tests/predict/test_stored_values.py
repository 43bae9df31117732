"""What values may be is judged when they are read, whoever reads them."""

import numpy as np
import pytest

from ensemble.core.grid import Grid
from ensemble.predict.stored_values import ArrayInMemory, Fractions, Ids, Sigmoid, Softmax
from ensemble.support.errors import VolumeError

GRID = Grid((1, 2, 3), (8, 8, 8), (4, 4, 4))


def stored(values: list[float], dtype: str = "float32") -> ArrayInMemory:
    return ArrayInMemory(np.array(values, dtype).reshape(GRID.shape), GRID, "p")


def read(reader: Fractions | Sigmoid | Softmax | Ids) -> list[float]:
    assert reader.read(GRID.box).dtype == reader.dtype
    return reader.read(GRID.box).ravel().tolist()


def test_what_rounding_leaves_beyond_0_and_1_is_clipped():
    assert read(Fractions(stored([0, 0.5, 1, -0.0009, 1.0009, 0.25]))) == [0, 0.5, 1, 0, 1, 0.25]
    assert read(Fractions(stored([0, 51, 255, 255.2, -0.2, 102]), 255)) == pytest.approx([0, 0.2, 1, 1, 0, 0.4])
    assert read(Fractions(stored([0, 1, 1, 0, 1, 0], "bool"))) == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "dtype", "whole", "told"),
    [
        ([0, 0.5, 1, 1, 1, 1.0012], "float32", 1, "values run from 0.0 to 1.0012; write"),
        ([0, 0.5, 1, 1, 1, 1.00101], "float64", 1, "values run from 0.0 to 1.00101; write"),
        ([0, -0.00105, 1, 1, 1, 1], "float64", 1, "values run from -0.00105 to 1.0; write"),
        ([0, np.nan, np.nan, 1, 1, 1], "float16", 1, "2 voxels are NaN; write"),
        ([0, np.inf, 1, 1, 1, 1], "float32", 1, "values run from 0.0 to inf; write"),
        ([0, 1e300, 1, 1, 1, 1], "float64", 1, "values run from 0.0 to 1e+300; write"),
        ([0, 1, 2, 300, 5, 6], "uint16", 255, "values run from 0 to 300; write"),
        ([0, 1, -2, 3, 5, 6], "int16", 255, "values run from -2 to 6; write"),
    ],
)
def test_others_are_told_with_the_digits_that_matter(values, dtype, whole, told):
    with pytest.raises(VolumeError, match=f"^p: {told}".replace("+", "[+]")):
        Fractions(stored(values, dtype), whole).read(GRID.box)


def test_raw_outputs_become_probabilities():
    assert read(Sigmoid(stored([0, np.log(3), -np.log(3), 100, -100, 0], "float16"))) == pytest.approx(
        [0.5, 0.75, 0.25, 1, 0, 0.5], abs=1e-3
    )
    first, second = stored([0, np.log(3), 5, -1000, 5, 0]), stored([0, 0, 5, 1000, 5, np.log(4)])
    one, other = (Softmax(channel, (first, second), "here") for channel in (first, second))
    assert read(one) == pytest.approx([0.5, 0.75, 0.5, 0, 0.5, 0.2])
    assert read(other) == pytest.approx([0.5, 0.25, 0.5, 1, 0.5, 0.8])


def test_all_channels_are_read_once_for_the_classes_of_a_box():
    class Counted(ArrayInMemory):
        reads = 0

        def read(self, box):
            Counted.reads += 1
            return super().read(box)

    channels = [Counted(np.full(GRID.shape, i, np.float32), GRID, "p") for i in range(5)]
    shares = [Softmax(channel, channels, "counted").read(GRID.box) for channel in channels]
    assert Counted.reads == 5 + 5
    assert np.allclose(np.sum(shares, axis=0), 1)


def test_ids_are_whole_numbers_from_0():
    assert read(Ids(stored([0, 1, 2, 300, 5, 6], "int32"))) == [0, 1, 2, 300, 5, 6]
    with pytest.raises(VolumeError, match=r"p: has the id -1; ids are not negative"):
        read(Ids(stored([0, 1, -1, 3, 5, 6], "int32")))
