"""The table of scores: what is worth most first."""

import json

from ensemble.report.class_scores import ScoreRow, score_rows
from ensemble.scoring.pooling import Tally
from ensemble.scoring.scores import ArrayScore, ArrayStatus, Scores


def of(status: ArrayStatus, tally: Tally) -> ArrayScore:
    return ArrayScore(status, tally, 1000, (4.0, 4.0, 4.0))


def test_a_row_has_the_counts_the_gain_and_the_worst_crop_with_truth():
    scored, missing = ArrayStatus.SCORED, ArrayStatus.NO_TRUTH
    arrays = {
        "crop1": {"ecs": of(scored, Tally(90, 10, 0)), "mito": of(scored, Tally(1, 0, 1, 1.0, 2))},
        "crop2": {"ecs": of(scored, Tally(30, 20, 50)), "mito": of(missing, Tally())},
        "crop3": {"ecs": of(scored, Tally(0, 5, 0)), "mito": of(missing, Tally())},  # nothing is there to be found
    }
    scores = Scores("2026-06", frozenset({"mito"}), arrays)
    rows = {row.name: row for row in score_rows(json.loads(scores.to_json()))}
    mito, ecs = rows["mito"], rows["ecs"]
    assert (mito.unit, mito.f1, mito.distance, mito.worst) == ("objects", 2 / 3, 0.5, f"crop1 {mito.score:.4f}")
    gain = scores.if_perfect("ecs") - scores.overall.score
    assert ecs == ScoreRow("ecs", 120 / 205, gain, "voxels", None, None, 120, 35, 50, "crop2 0.3000")
    assert [row.gain for row in rows.values()] == sorted((row.gain for row in rows.values()), reverse=True)
