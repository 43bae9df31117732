"""One crop of a semantic class, and its counts along a threshold."""

import numpy as np

from ensemble.scoring.evaluation import semantic_scores
from ensemble.scoring.semantic import threshold_counts


def test_semantic_foreground_is_everything_above_zero():
    truth, prediction = np.zeros((2, 2, 2, 3))
    truth[0, 0] = [1, 1, 0]
    prediction[0, 0] = [0.1, 0, 255]
    got = semantic_scores(truth, prediction.astype(np.float32))
    assert (got["tp"], got["fp"], got["fn"]) == (1, 1, 1)
    assert got["iou"] == 1 / 3
    assert semantic_scores(truth * 0, truth * 0)["iou"] == 1.0
    assert semantic_scores(truth > 0, truth > 0)["iou"] == 1.0


def test_the_curve_counts_what_thresholding_counts():
    chance = np.random.default_rng(0)
    p, truth = chance.random((5, 6, 7), dtype=np.float32), chance.random((5, 6, 7)) < 0.4
    thresholds = np.float32([0.1, 0.25, 0.5, float(p[0, 0, 0]), 0.9])
    thresholds.sort()
    for row, t in zip(threshold_counts(p, truth, thresholds), thresholds, strict=True):
        found = p > t
        assert row.tolist() == [(found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()]
