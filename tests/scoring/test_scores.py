"""From crops to classes to the overall score, and the official JSON."""

import json
import math

import numpy as np
import pytest

from ensemble.scoring.pooling import Tally
from ensemble.scoring.scores import ArrayScore, ArrayStatus, Scores
from tests.support import small_submission as small
from tests.support.scored_submission import GRID, SIZE, scored


def test_json_is_the_official_result_and_more(submission, truth):
    """One of two mitochondria is lost, and half of the extracellular space is made up."""
    masks = small.good()
    masks["mito"][masks["mito"] == 2] = 0
    masks["ecs"][:] = 1
    said = json.loads(scored(small.write(submission, masks), truth).to_json())
    ecs = int(small.good()["ecs"].sum())
    farthest = min(n * v / 2 for n, v in zip(GRID.shape, GRID.voxel_size_nm, strict=True))
    lost = 1.01 ** (-float(np.float32(farthest)) / math.sqrt(1.74**2 + 4 + 4))
    mito = said["label_scores"]["mito"]
    assert said["rules"] == "2026-06"
    assert mito["f1"] == 2 / 3
    assert mito["normalized_hausdorff_distance"] == pytest.approx((1 + lost) / 2, abs=1e-12)
    assert mito["combined_score"] == pytest.approx(math.sqrt(2 / 3 * (1 + lost) / 2), abs=1e-12)
    assert said["label_scores"]["ecs"]["iou"] == ecs / SIZE
    assert said["overall_instance_score"] == pytest.approx((mito["combined_score"] + 1) / 2, abs=1e-12)
    assert said["overall_semantic_score"] == pytest.approx((ecs / SIZE + 2) / 3, abs=1e-12)
    product = said["overall_instance_score"] * said["overall_semantic_score"]
    assert said["overall_score"] == pytest.approx(math.sqrt(product), abs=1e-12)
    array = said["crops"]["crop557"]["mito"]
    assert (array["status"], array["tp"], array["fp"], array["fn"]) == ("scored", 1, 0, 1)
    assert array["n_hausdorff"] == 2
    assert array["hausdorff_norm_sum"] == pytest.approx(1 + lost, abs=1e-12)
    assert said["crops"]["crop984"]["nuc"]["status"] == "empty truth"
    assert mito["overall_score_if_perfect"] == pytest.approx(math.sqrt(said["overall_semantic_score"]), abs=1e-12)


def test_all_metrics_stand_beside_the_official_ones(submission, truth):
    said = json.loads(scored(submission, truth).to_json("all"))["label_scores"]
    assert said["mito"].keys() >= {"f1", "adapted_rand_error", "voi_split", "voi_merge", "panoptic_quality"}
    assert said["ecs"].keys() >= {"iou", "dice", "precision", "recall", "f1"}
    assert "dice" not in json.loads(scored(submission, truth).to_json())["label_scores"]["ecs"]


def test_crops_are_pooled_before_they_are_scored(submission, truth):
    """A made-up nucleus in crop 984 costs the class, not a mean over crops: F1 = 2 / 3."""
    nuc = np.zeros(small.SMALL.grid.shape, np.uint8)
    nuc[1, 1, 1] = 1
    small.create_array(submission, small.SMALL, "nuc", np.uint8)[small.SMALL.grid.box] = nuc
    got = json.loads(scored(submission, truth).to_json())["label_scores"]["nuc"]
    made_up = 1.01 ** (-64 / math.sqrt(3 * 32**2))
    assert got["f1"] == 2 / 3
    assert got["normalized_hausdorff_distance"] == pytest.approx((1 + made_up) / 2, abs=1e-12)


def test_scores_can_be_logged_by_name(submission, truth):
    flat = scored(submission, truth).flat()
    assert flat["overall_score"] == flat["mito/combined_score"] == flat["ecs/iou"] == 1.0
    assert len(flat) == 3 + 5


def test_an_array_without_truth_counts_for_nothing_and_instance_classes_come_first():
    def of(status, tally):
        return ArrayScore(status, tally, 1000, (4.0, 4.0, 4.0))

    first = {"ecs": of(ArrayStatus.SCORED, Tally(3, 1, 0)), "mito": of(ArrayStatus.SCORED, Tally(1, 0, 0, 1.0, 1))}
    second = {"ecs": of(ArrayStatus.SCORED, Tally(0, 4, 0)), "mito": of(ArrayStatus.NO_TRUTH, Tally())}
    scores = Scores("2026-06", frozenset({"mito"}), {"crop1": first, "crop2": second})
    assert list(scores.by_class.items()) == [("mito", 1.0), ("ecs", 3 / 8)]
    assert (scores.key("mito"), scores.key("ecs")) == ("combined_score", "iou")
    assert scores.if_perfect("ecs") == 1
    assert "tp" not in json.loads(scores.to_json())["crops"]["crop2"]["mito"]
