"""Losses and scores on a few voxels, by hand."""

import math

import numpy as np
import pytest


def test_voxels_that_are_not_annotated_teach_nothing():
    import torch

    from ensemble.train.losses import masked_loss

    logits = torch.zeros((1, 2, 1, 1, 3), requires_grad=True)
    target = torch.tensor([[[[[1.0, 0.0, math.nan]]], [[[math.nan] * 3]]]])
    bce = masked_loss(logits, target, "bce")
    assert bce.item() == pytest.approx(math.log(2))
    # soft Dice of the one class that is there: shares 0.5 + 0.5, of which 0.5 are right
    assert masked_loss(logits, target, "bce_dice").item() == pytest.approx(math.log(2) + 1 - (1 + 1) / (2 + 1))
    bce.backward()
    assert logits.grad.flatten().tolist() == pytest.approx([-0.25, 0.25, 0, 0, 0, 0])
    assert masked_loss(logits, torch.full_like(target, math.nan), "bce_dice").item() == 0


def test_answers_at_several_depths_are_averaged_with_halving_weights():
    import torch

    from ensemble.train.losses import supervised_loss

    target = torch.ones((1, 1, 4, 4, 4))
    full, half = torch.zeros((1, 1, 4, 4, 4)), torch.full((1, 1, 2, 2, 2), 50.0)
    expected = (math.log(2) + 0.5 * 0) / 1.5
    assert supervised_loss([full, half], target, "bce").item() == pytest.approx(expected)
    stacked = torch.stack([full, torch.full_like(full, 50.0)], dim=1)
    assert supervised_loss(stacked, target, "bce").item() == pytest.approx(expected)


def test_scores_count_annotated_voxels_at_one_half():
    import torch

    from ensemble.train.crops import SURE, UNKNOWN
    from ensemble.train.losses import overlaps, scores_of

    logits = torch.tensor([3.0, 3.0, 3.0, -3.0, -3.0, 3.0]).reshape(1, 1, 1, 1, 6)
    codes = torch.tensor([SURE, SURE, 0, SURE, 0, UNKNOWN], dtype=torch.uint8).reshape(1, 1, 1, 1, 6)
    counts = overlaps(logits, codes).numpy()
    assert counts.tolist() == [[2, 1, 1]]
    counts = np.concatenate([counts, np.zeros((2, 3), int)])
    scores = scores_of(counts, [True, True, False], ["mito", "er", "ves"])
    assert scores == {
        "mito": {"dice": pytest.approx(2 / 3), "iou": pytest.approx(1 / 2)},
        "er": {"dice": 1, "iou": 1},
    }
