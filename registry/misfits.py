"""What most likely explains that weights do not fit a network, in one sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def in_one_sentence(
    path: Path, expected: Mapping[str, torch.Tensor], values: Mapping[str, Any], channels: int | None
) -> str | None:
    """The sentence, where shapes alone differ and one number explains them all; None elsewhere.

    ``channels`` is how many classes the card names.
    """
    shapes = {key: tuple(value.shape) for key, value in values.items() if isinstance(value, torch.Tensor)}
    if not expected.keys() <= shapes.keys() or not shapes.keys() <= expected.keys():
        return None
    different = [key for key, tensor in expected.items() if shapes[key] != tuple(tensor.shape)]
    pairs = {pair for key in different for pair in _changed(tuple(expected[key].shape), shapes[key])}
    if len(pairs) == 1 and next(iter(pairs))[0] == channels:
        there = next(iter(pairs))[1]
        return (
            f"{path}: the card names {channels} classes, the network has {there} channels; list one class for each"
            " channel, null for one nobody wants"
        )
    ratios = {there / here for here, there in pairs if here and there}
    if len(ratios) == 1 and len(pairs) > 1:
        return f"{path}: the network is {next(iter(ratios)):g} times as wide as the card's arguments say; correct them"
    return None


def _changed(here: tuple[int, ...], there: tuple[int, ...]) -> set[tuple[int, int]]:
    """Pairs of lengths that differ; of another number of axes, one that nothing explains."""
    if len(here) != len(there):
        return {(0, len(there))}
    return {pair for pair in zip(here, there, strict=True) if pair[0] != pair[1]}
