"""What the bounds of a recipe's numbers are for: nothing within them is lost in float32."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from ensemble.methods.method_table import Stage
from ensemble.methods.ranges import LEAST_WEIGHT, MOST_WEIGHT, Fraction, LengthNm
from ensemble.methods.steps import METHODS


def test_a_fraction_is_neither_0_nor_1_in_float32_either() -> None:
    for value in (1e-6, 0.999999):
        fraction = np.float32(TypeAdapter(Fraction).validate_python(value))
        assert 0 < fraction < 1
        assert np.isfinite(np.log(fraction / (1 - fraction)))
    for value in (0.0, 1.0, 1 - 2**-53, 1e-300):
        with pytest.raises(ValidationError):
            TypeAdapter(Fraction).validate_python(value)


def test_weights_add_up_and_divide_in_float32() -> None:
    total = np.float32(MOST_WEIGHT) + np.float32(LEAST_WEIGHT)
    assert np.isfinite(total)
    assert np.float32(LEAST_WEIGHT) / total > 0


@pytest.mark.parametrize("length", [0.01, 1e5])
@pytest.mark.parametrize("name", [n for n, m in METHODS.by_name.items() if m.stage is Stage.PROBABILITY])
def test_a_step_takes_the_shortest_and_the_longest_length(name: str, length: float) -> None:
    method = METHODS.by_name[name]
    (key,) = method.parameters.model_fields
    assert TypeAdapter(LengthNm).validate_python(length) == length
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    changed = method.function(values, (8.0, 8.0, 8.0), **method.parameters.model_validate({key: length}).model_dump())
    assert changed.shape == values.shape
    assert np.isfinite(changed).all()
