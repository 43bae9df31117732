"""The scores of a submission: arrays, classes, and the whole."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from ensemble.core import NmZYX
from ensemble.scoring.metrics import Metrics, Partition, instance_metrics, semantic_metrics
from ensemble.scoring.pooling import (
    OverallScores,
    Tally,
    instance_class_scores,
    overall_scores,
    semantic_class_scores,
)
from ensemble.scoring.semantic import VoxelCounts

MetricSet = Literal["official", "all"]


class ArrayStatus(StrEnum):
    """What became of an array.

    SCORED; MISSING from the submission; EMPTY_TRUTH: scored, though there is nothing to find; TOO_MANY
    objects, so that it does not count; NO_TRUTH to hold it against, so that it does not count either.
    """

    SCORED = "scored"
    MISSING = "missing"
    EMPTY_TRUTH = "empty truth"
    TOO_MANY = "too many objects"
    NO_TRUTH = "no truth"


@dataclass(frozen=True)
class ArrayScore:
    """One class of one crop; ``why`` says more of the status, where there is more to say."""

    status: ArrayStatus
    tally: Tally
    voxels: int
    voxel_size_nm: NmZYX
    why: str | None = None


@dataclass(frozen=True)
class Scores:
    """What a submission is worth under the rules of that name; ``arrays``: crop -> class -> score.

    ``leaks``: the scored crops that sources of the submission were trained on, with these sources.
    """

    rules: str
    instance_classes: frozenset[str]
    arrays: Mapping[str, Mapping[str, ArrayScore]]
    leaks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def tallies(self) -> dict[str, Tally]:
        """Class -> its counts over all crops that have truth for it, instance classes first."""
        pooled: dict[str, Tally] = {}
        for classes in self.arrays.values():
            for name, array in classes.items():
                if array.status != ArrayStatus.NO_TRUTH:
                    pooled[name] = pooled.get(name, Tally()) + array.tally
        return dict(sorted(pooled.items(), key=lambda row: row[0] not in self.instance_classes))

    def of(self, name: str, tally: Tally) -> dict[str, float]:
        """Scores of a class by their official names."""
        return (instance_class_scores if name in self.instance_classes else semantic_class_scores)(tally)

    def key(self, name: str) -> str:
        """The official name of the score that counts for a class."""
        return "combined_score" if name in self.instance_classes else "iou"

    @cached_property
    def by_class(self) -> dict[str, float]:
        """The score that counts, by class."""
        return {name: self.of(name, tally)[self.key(name)] for name, tally in self.tallies.items()}

    @cached_property
    def overall(self) -> OverallScores:
        return overall_scores(self.by_class, self.instance_classes)

    def if_perfect(self, name: str) -> float:
        """The overall score that would result, were this class perfect."""
        return overall_scores(self.by_class | {name: 1.0}, self.instance_classes).score

    def metrics_of(self, name: str, tally: Tally) -> Metrics:
        """What the field measures of a class beside the official scores."""
        if name not in self.instance_classes:
            return semantic_metrics(VoxelCounts(tally.tp, tally.fp, tally.fn))
        return instance_metrics(tally.partition or Partition())

    def summary(self) -> dict[str, float]:
        """The overall scores by their official names."""
        return {
            "overall_instance_score": self.overall.instance,
            "overall_semantic_score": self.overall.semantic,
            "overall_score": self.overall.score,
        }

    def flat(self) -> dict[str, float]:
        """The overall scores and every class's, such as "mito/combined_score", to be logged."""
        return self.summary() | {f"{name}/{self.key(name)}": score for name, score in self.by_class.items()}

    def table(self) -> dict[str, list[Any]]:
        """Columns by name, with a row for every class: the score that counts, and its counts."""
        rows = [(name, self.by_class[name], tally.tp, tally.fp, tally.fn) for name, tally in self.tallies.items()]
        columns = {column: [row[i] for row in rows] for i, column in enumerate(("class", "score", "tp", "fp", "fn"))}
        return {"rules": [self.rules] * len(rows), **columns}

    def to_json(self, which: MetricSet = "official") -> str:
        """Under the keys of the official result; ``crops`` holds counts and a status for every array."""
        values = {
            "rules": self.rules,
            "label_scores": {name: self._class(name, tally, which) for name, tally in self.tallies.items()},
            **self.summary(),
            **({"trained_on": {crop: list(names) for crop, names in self.leaks.items()}} if self.leaks else {}),
            "crops": {
                crop: {name: self._array(name, array, which) for name, array in classes.items()}
                for crop, classes in self.arrays.items()
            },
        }
        return json.dumps(values, indent=2)

    def _class(self, name: str, tally: Tally, which: MetricSet) -> dict[str, Any]:
        return {
            **(self.metrics_of(name, tally) if which == "all" else {}),
            **self.of(name, tally),
            "tp": tally.tp,
            "fp": tally.fp,
            "fn": tally.fn,
            "overall_score_if_perfect": self.if_perfect(name),
        }

    def _array(self, name: str, array: ArrayScore, which: MetricSet) -> dict[str, Any]:
        values: dict[str, Any] = {
            "status": array.status,
            "is_missing": array.status == ArrayStatus.MISSING,
            "num_voxels": array.voxels,
            "voxel_size": list(array.voxel_size_nm),
        }
        if array.why:
            values["why"] = array.why
        if array.status == ArrayStatus.NO_TRUTH:
            return values
        tally = array.tally
        values |= {"tp": tally.tp, "fp": tally.fp, "fn": tally.fn}
        if name in self.instance_classes:
            values |= {"hausdorff_norm_sum": tally.distance_scores, "n_hausdorff": tally.distances}
        if array.status == ArrayStatus.TOO_MANY:
            return values
        return values | (self.metrics_of(name, tally) if which == "all" else {}) | self.of(name, tally)
