"""A report's table of scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensemble.core import is_instance


@dataclass(frozen=True)
class ScoreRow:
    """A class's score, what the overall score would gain were it perfect, and its worst crop in words.

    Counts are of objects or of voxels, as ``unit`` says; ``f1`` and ``distance`` are None for semantic classes.
    """

    name: str
    score: float
    gain: float
    unit: str
    f1: float | None
    distance: float | None
    tp: int
    fp: int
    fn: int
    worst: str | None


def score_rows(scores: Mapping[str, Any]) -> tuple[ScoreRow, ...]:
    """A row for each class, what its perfection would gain first; ``scores`` as ``Scores.to_json`` writes them."""
    rows = []
    for name, values in scores["label_scores"].items():
        key = "combined_score" if "combined_score" in values else "iou"
        by_crop = {c: classes[name] for c, classes in scores.get("crops", {}).items() if key in classes.get(name, {})}
        worst = min(((row[key], crop) for crop, row in by_crop.items() if row["tp"] + row["fn"]), default=None)
        rows.append(
            ScoreRow(
                name=name,
                score=values[key],
                gain=values["overall_score_if_perfect"] - scores["overall_score"],
                unit="objects" if is_instance(name) else "voxels",
                f1=values.get("f1"),
                distance=values.get("normalized_hausdorff_distance"),
                tp=values["tp"],
                fp=values["fp"],
                fn=values["fn"],
                worst=None if worst is None else f"{worst[1]} {worst[0]:.4f}",
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.gain))
