"""From crops to classes, and from classes to the overall score."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ensemble.scoring.metrics import Partition


@dataclass(frozen=True)
class Tally:
    """What one array, or a class over its crops, counts: objects or voxels; arrays of one class add up.

    ``distance_scores`` is the sum of ``distances`` scores; both stay 0 for a semantic class, as ``partition``
    stays None.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    distance_scores: float = 0.0
    distances: int = 0
    partition: Partition | None = None

    def __add__(self, other: "Tally") -> "Tally":
        parts = [tally.partition for tally in (self, other) if tally.partition is not None]
        return Tally(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.distance_scores + other.distance_scores,
            self.distances + other.distances,
            sum(parts[1:], parts[0]) if parts else None,
        )


def instance_class_scores(tally: Tally) -> dict[str, float]:
    """F1, distance score and the class's score by their official names; 1 where nothing is anywhere."""
    objects = 2 * tally.tp + tally.fp + tally.fn
    if not objects and not tally.distances:
        f1 = distance = 1.0
    else:
        f1 = 2 * tally.tp / objects if objects else 0.0
        distance = tally.distance_scores / tally.distances if tally.distances else 0.0
    return {
        "f1": f1,
        "normalized_hausdorff_distance": distance,
        "combined_score": math.sqrt(f1 * distance),
    }


def semantic_class_scores(tally: Tally) -> dict[str, float]:
    """The class's score by its official name; 1 where nothing is anywhere."""
    voxels = tally.tp + tally.fp + tally.fn
    return {"iou": tally.tp / voxels if voxels else 1.0}


@dataclass(frozen=True)
class OverallScores:
    """The scores of a whole submission; 0 for a kind that has no class."""

    instance: float
    semantic: float

    @property
    def score(self) -> float:
        return math.sqrt(self.instance * self.semantic)


def overall_scores(scores: Mapping[str, float], instance_classes: Iterable[str]) -> OverallScores:
    """Of each class's score the plain mean over instance classes, and over the others."""
    instance = [score for name, score in scores.items() if name in instance_classes]
    semantic = [score for name, score in scores.items() if name not in instance_classes]
    return OverallScores(_mean(instance), _mean(semantic))


def _mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
