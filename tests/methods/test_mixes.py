"""Mixing probabilities: by hand."""

import numpy as np
import pytest

from ensemble.methods.mixes import MIXES

P = [np.array([0.2, 0.9], np.float32), np.array([0.6, 0.1], np.float32), np.array([0.7, 0.4], np.float32)]


@pytest.mark.parametrize(
    ("how", "weights", "expected"),
    [
        ("mean", [1, 1, 1], [0.5, 1.4 / 3]),
        ("mean", [3, 1, 0.5], [(0.6 + 0.6 + 0.35) / 4.5, (2.7 + 0.1 + 0.2) / 4.5]),
        ("max", [1, 1, 1], [0.7, 0.9]),
        ("min", [1, 1, 1], [0.2, 0.1]),
        ("median", [1, 1, 1], [0.6, 0.4]),
        ("median", [3, 1, 1], [0.2, 0.9]),
        ("vote", [1, 1, 2], [0.75, 0.25]),
    ],
)
def test_mixes(how: str, weights: list[float], expected: list[float]) -> None:
    before = [p.copy() for p in P]
    assert MIXES[how](P, weights) == pytest.approx(expected, abs=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(P, before, strict=True))


def test_the_median_of_two_is_their_middle() -> None:
    assert MIXES["median"](P[:2], [1, 1]) == pytest.approx([0.4, 0.5])


def test_logit_mean_of_opposites_is_one_half_and_of_certainties_is_finite() -> None:
    opposites = [np.array([0.9, 0.0], np.float32), np.array([0.1, 1.0], np.float32)]
    assert MIXES["logit_mean"](opposites, [1, 1]) == pytest.approx([0.5, 0.5], abs=1e-5)
    odds = MIXES["logit_mean"]([np.array([0.8], np.float32), np.array([0.5], np.float32)], [1, 1])
    assert odds == pytest.approx([2 / 3], abs=1e-6)  # odds 4 and 1: geometric mean 2
