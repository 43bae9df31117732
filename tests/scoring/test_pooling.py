"""From crops to classes, and from classes to the overall score."""

import math

import pytest

from ensemble.scoring.pooling import Tally, instance_class_scores, overall_scores, semantic_class_scores


def test_tallies_add_up_before_they_are_scored():
    total = Tally(1, 0, 1, 0.5, 2) + Tally(2, 1, 0, 2.5, 3)
    assert total == Tally(3, 1, 1, 3.0, 5)
    assert instance_class_scores(total)["f1"] == 6 / 8
    assert instance_class_scores(total)["combined_score"] == pytest.approx(math.sqrt(6 / 8 * 3 / 5))
    assert semantic_class_scores(Tally(3, 1, 1)) == {"iou": 3 / 5}
    assert instance_class_scores(Tally())["combined_score"] == semantic_class_scores(Tally())["iou"] == 1


def test_the_overall_score_is_the_root_of_both_means():
    got = overall_scores({"mito": 0.5, "nuc": 1.0, "ecs": 0.25}, ["mito", "nuc"])
    assert (got.instance, got.semantic, got.score) == (0.75, 0.25, pytest.approx(math.sqrt(0.75 * 0.25)))
    assert overall_scores({"ecs": 1.0}, ["mito"]).score == 0
