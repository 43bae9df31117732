"""Mixing several sources' probabilities for one class into one."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]
MixFunction = Callable[[Sequence[Probabilities], Sequence[float]], Probabilities]

MIXES: dict[str, MixFunction] = {}
"""Every way to mix, by the name a recipe uses."""

_NEVER_CERTAIN = 1 / 510


def mix(function: MixFunction) -> MixFunction:
    """Register a function of (probabilities, weights) under its name."""
    if function.__name__ in MIXES:
        raise ValueError(f"two mixes are called {function.__name__}")
    MIXES[function.__name__] = function
    return function


@mix
def mean(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """Weighted arithmetic mean."""
    total = np.float32(sum(weights))
    out = probabilities[0] * np.float32(weights[0] / total)
    for p, w in zip(probabilities[1:], weights[1:], strict=True):
        out += p * np.float32(w / total)
    return out


@mix
def logit_mean(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """Weighted mean of log-odds, back as a probability; 0 and 1 count as 1/510 and 1 - 1/510."""
    clipped = [np.clip(p, _NEVER_CERTAIN, 1 - _NEVER_CERTAIN) for p in probabilities]
    odds = mean([np.log(p / (1 - p)) for p in clipped], weights)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


@mix
def max(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """The largest; weights only say who takes part."""
    largest: Probabilities = np.maximum.reduce(list(probabilities))
    return largest


@mix
def min(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """The smallest; weights only say who takes part."""
    smallest: Probabilities = np.minimum.reduce(list(probabilities))
    return smallest


@mix
def median(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """The weighted median: half the weight lies at or below it, half at or above; the middle of two such."""
    stack = np.stack(probabilities)
    order = np.argsort(stack, axis=0, kind="stable")
    ranked = np.take_along_axis(stack, order, axis=0)
    cumulative = np.cumsum(np.asarray(weights, np.float64)[order], axis=0)
    half = cumulative[-1] / 2
    low = np.argmax(cumulative >= half * (1 - 1e-9), axis=0)
    high = np.argmax(cumulative > half * (1 + 1e-9), axis=0)
    pick = [np.take_along_axis(ranked, index[None], axis=0)[0] for index in (low, high)]
    middle: Probabilities = (pick[0] + pick[1]) / 2
    return middle


@mix
def vote(probabilities: Sequence[Probabilities], weights: Sequence[float]) -> Probabilities:
    """The share of the weight whose probability is above one half."""
    return mean([(p > 0.5).astype(np.float32) for p in probabilities], weights)
