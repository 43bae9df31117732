"""What the objects of a crop are worth, by the name of the rules that a score is made under.

The rules of the challenge change. To add a later set, write how it values a comparison and list it in RULES.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.scoring.instances import Comparison
from ensemble.scoring.matching import MatchingLimits
from ensemble.support import EnsembleError, suggestion

BASE = 1.01
"""A voxel's diagonal more costs about one percent."""


@dataclass(frozen=True)
class Rules:
    """``distance_scores``: 0 … 1 for every object of a crop that counts, whose mean is the distance score."""

    name: str
    limits: MatchingLimits
    distance_scores: Callable[[Comparison], NDArray[np.float64]]


def _every_object_by_distance(comparison: Comparison) -> NDArray[np.float64]:
    """1.01^(-d / |voxel|): d of each object of the truth, and the farthest for each unmatched prediction."""
    unmatched = np.full(comparison.fp, comparison.farthest_nm, np.float32)
    distances = np.concatenate([comparison.distances_nm, unmatched]).astype(np.float64)
    return np.asarray(BASE ** (-distances / np.linalg.norm(comparison.voxel_size_nm)))


RULES = {
    rules.name: rules
    for rules in (
        Rules(
            name="2026-06",
            limits=MatchingLimits(final_ratio=10, extra_ratio=50, decay=5, overlaps=5_000_000),
            distance_scores=_every_object_by_distance,
        ),
    )
}

LATEST_RULES = "2026-06"


def rules_named(name: str) -> Rules:
    """Raises EnsembleError for a name that no rules have."""
    if name not in RULES:
        raise EnsembleError(f"--rules {name}: there are no such rules{suggestion(name, RULES)}")
    return RULES[name]
