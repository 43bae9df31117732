"""What the field measures, against scikit-image or by brute force, on random volumes."""

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error, variation_of_information

from ensemble.scoring import metrics
from ensemble.scoring.evaluation import instance_scores, semantic_scores
from ensemble.scoring.objects import overlap_table
from tests.support.brute_score import parts

VOXEL = (8.0, 8.0, 8.0)


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocky truth, and a prediction that differs in some blocks and voxels."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 5, (3, 4, 4)).repeat(3, 0).repeat(2, 1).repeat(3, 2).astype(np.uint8)
    prediction = np.where(random.random(truth.shape) < 0.15, random.integers(0, 5, truth.shape), truth)
    return truth, prediction.astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_instances_agree_with_scikit_image(seed):
    truth, prediction = random_pair(seed)
    objects, _ = parts(prediction)
    got = instance_scores(truth, prediction, VOXEL)
    split, merge = variation_of_information(truth, objects)
    assert got["adapted_rand_error"] == pytest.approx(adapted_rand_error(truth, objects)[0], abs=1e-12)
    assert got["voi_split"] == pytest.approx(split, abs=1e-12)
    assert got["voi_merge"] == pytest.approx(merge, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_by_its_definition(seed):
    truth, prediction = random_pair(seed)
    objects, count = parts(prediction)
    ids = [i for i in np.unique(truth) if i]
    same = []
    for i in ids:
        for n in range(1, count + 1):
            iou = ((truth == i) & (objects == n)).sum() / ((truth == i) | (objects == n)).sum()
            same += [iou] if iou > 0.5 else []
    missed, made_up = len(ids) - len(same), count - len(same)
    expected = sum(same) / (len(same) + missed / 2 + made_up / 2)
    assert instance_scores(truth, prediction, VOXEL)["panoptic_quality"] == pytest.approx(expected, abs=1e-12)


def test_half_an_object_is_not_the_same_object():
    truth, prediction = np.zeros((2, 1, 1, 8), np.uint8)
    truth[0, 0, :4] = 1
    prediction[0, 0, :2] = 1
    assert instance_scores(truth, prediction, VOXEL)["panoptic_quality"] == 0.0
    prediction[0, 0, :3] = 1
    assert instance_scores(truth, prediction, VOXEL)["panoptic_quality"] == 0.75


def test_semantic_by_hand():
    truth = np.array([[[1, 1, 1, 1, 0, 0, 0]]])
    prediction = np.array([[[1, 0, 0, 0, 1, 1, 0]]])
    got = semantic_scores(truth, prediction)
    assert got["dice"] == got["f1"] == 2 / 7
    assert (got["iou"], got["precision"], got["recall"]) == (1 / 6, 1 / 3, 1 / 4)


def test_what_cannot_be_measured_is_none():
    nothing, something = np.zeros((2, 3, 3, 3), np.uint8)
    something[1, 1, 1] = 1
    assert instance_scores(nothing, something, VOXEL)["adapted_rand_error"] is None
    assert semantic_scores(something, nothing)["precision"] is None
    assert semantic_scores(nothing, something)["recall"] is None
    assert instance_scores(nothing, nothing, VOXEL)["panoptic_quality"] == 1.0


def test_crops_add_up_to_the_volume_that_holds_both():
    """Ids differ between the crops, and so do their backgrounds."""
    (first, second), (third, fourth) = random_pair(0), random_pair(1)
    summed = metrics.partition_of(overlap_table(first, second)) + metrics.partition_of(overlap_table(third, fourth))
    truth = np.concatenate([first, np.where(third, third + 10, 10)]).astype(np.int64)
    other = np.concatenate([second, np.where(fourth, fourth + 10, 10)]).astype(np.int64)
    got = metrics.instance_metrics(summed)
    split, merge = variation_of_information(truth, other)
    assert got["voi_split"] == pytest.approx(split, abs=1e-12)
    assert got["voi_merge"] == pytest.approx(merge, abs=1e-12)
    rand = adapted_rand_error(truth, other, ignore_labels=(0, 10))[0]
    assert got["adapted_rand_error"] == pytest.approx(rand, abs=1e-12)
