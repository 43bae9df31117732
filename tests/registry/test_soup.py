"""Shares of a soup's members."""

import numpy as np
import pytest

from ensemble.support.errors import RegistryError
from registry import soup
from tests.support.networks_small import refusal


def test_shares_add_up_as_their_name_says():
    assert soup.member_shares("uniform", 4) == [0.25] * 4
    assert soup.member_shares("weighted", 2, given=(3, 1)) == [0.75, 0.25]
    running = 10.0
    for value in (20.0, 40.0):
        running = 0.9 * running + 0.1 * value
    assert np.dot(soup.member_shares("ema", 3, decay=0.9), [10, 20, 40]) == pytest.approx(running)
    assert "give 3 numbers above 0" in refusal(
        lambda: soup.member_shares("weighted", 3, given=(1, 0, 2)), error=RegistryError
    )
