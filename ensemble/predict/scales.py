"""Whether whole numbers are shares of their type's highest, as is assumed of a source that says nothing else."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ensemble.predict.probabilities import StoredProbabilities
from ensemble.support import VolumeError

_FAR_BELOW = 5
"""A source that nowhere reaches a fifth of its type's highest value is on another scale, or never sure of anything."""


def refuse_other_scales(source: str, seen: Iterable[tuple[StoredProbabilities, int]]) -> None:
    """Raises VolumeError where a source's highest values, array by array, are all far below what their type holds.

    Zeros alone say nothing.
    """
    highest: dict[np.dtype[Any], tuple[int, str]] = {}
    for field, value in seen:
        dtype = field.volume.dtype
        highest[dtype] = max(highest.get(dtype, (0, "")), (value, field.volume.place))
    for dtype, (value, place) in highest.items():
        most = np.iinfo(dtype).max
        if is_far_below(value, dtype):
            raise VolumeError(
                f"{place}: the highest value of source {source} is {value} where {dtype} goes up to {most}, so it is "
                f"not on a scale of 0 to {most}; say labels: instead of predictions: if these are masks or ids, "
                f"scale: {_guess(value)} in the source if that stands for 1 (scale: {most} if it is right as it is), "
                "or write floats from 0 to 1"
            )


def is_far_below(value: int, dtype: np.dtype[Any]) -> bool:
    """Whether a highest value cannot well be a share of the type's; 0 alone says nothing."""
    return 0 < value * _FAR_BELOW < int(np.iinfo(dtype).max)


def _guess(value: int) -> int:
    """The round number nearest above."""
    return next((whole for whole in (1, 100, 255, 1000, 4095, 10_000, 65_535) if value <= whole), value)
