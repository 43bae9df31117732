"""Two registered models side by side."""

import math
from dataclasses import dataclass

import torch

from registry.card import Card
from registry.checkpoint import read
from registry.store import ModelVersion, Registry

_LEFT_OUT = ("sha256", "validation", "truth_sizes_log2_nm3", "name")


@dataclass(frozen=True)
class Comparison:
    """``differences``: of the cards, by key. ``scores``: validation by class, None where there is none.

    ``apart`` is |a - b| / |a| of all their weights: 0 for equal ones, about 1.4 for networks trained apart; None
    where they are not the same network.
    """

    a: ModelVersion
    b: ModelVersion
    differences: dict[str, tuple[str, str]]
    scores: dict[str, tuple[float | None, float | None]]
    apart: float | None


def compare_models(registry: Registry, a: ModelVersion, b: ModelVersion) -> Comparison:
    """What differs between two versions, from their cards and their weights."""
    keys = [key for key in Card.model_fields if key not in _LEFT_OUT]
    keys_a, keys_b = a.card.model_dump(mode="json"), b.card.model_dump(mode="json")
    differences = {key: (str(keys_a[key]), str(keys_b[key])) for key in keys if keys_a[key] != keys_b[key]}
    names = dict.fromkeys([*a.card.validation, *b.card.validation])
    scores = {name: (a.card.validation.get(name), b.card.validation.get(name)) for name in names}
    return Comparison(a, b, differences, scores, _apart(registry, a, b))


def _apart(registry: Registry, a: ModelVersion, b: ModelVersion) -> float | None:
    first, second = read(registry.weights(a)).values, read(registry.weights(b)).values
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        return None
    floats = [key for key, value in first.items() if value.is_floating_point()]
    moved = sum(float((first[key].double() - second[key].double()).square().sum()) for key in floats)
    size = sum(float(torch.square(first[key].double()).sum()) for key in floats)
    return math.sqrt(moved / size) if size else 0.0
