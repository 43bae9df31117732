"""The challenge's numbers."""

from ensemble.scoring.evaluation import ScoringLimits, instance_scores, score, semantic_scores, tally_array
from ensemble.scoring.objects import box_of, split_objects
from ensemble.scoring.pooling import Tally, instance_class_scores, overall_scores, semantic_class_scores
from ensemble.scoring.rules import LATEST_RULES
from ensemble.scoring.scores import ArrayStatus, MetricSet, Scores
from ensemble.scoring.semantic import threshold_counts

__all__ = [
    "LATEST_RULES",
    "ArrayStatus",
    "MetricSet",
    "Scores",
    "ScoringLimits",
    "Tally",
    "box_of",
    "instance_class_scores",
    "instance_scores",
    "overall_scores",
    "score",
    "semantic_class_scores",
    "semantic_scores",
    "split_objects",
    "tally_array",
    "threshold_counts",
]
