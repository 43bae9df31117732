"""Losses that ignore what nobody annotated, and overlaps from which scores are made."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ensemble.train.crops import SURE, UNKNOWN

ValidationScores = dict[str, dict[str, float]]
"""Per class, its "dice" and "iou"."""


def target_of(codes: Tensor) -> Tensor:
    """The share, 0 ... 1, that each voxel has in each class; NaN where that is not annotated."""
    target = codes.float() / SURE
    return target.masked_fill(codes == UNKNOWN, math.nan)


def masked_loss(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """Binary cross-entropy over the voxels that are annotated; for "bce_dice" the soft Dice loss besides.

    ``logits`` and ``target`` (B, C, z, y, x), NaN in the target where nothing is known. The Dice loss is the
    mean over the classes that the batch holds.
    """
    known = ~target.isnan()
    target = target.nan_to_num(0.0)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)
    if kind == "bce":
        return loss
    share = torch.where(known, logits.sigmoid(), 0.0)
    axes = (0, 2, 3, 4)
    common, total = (share * target).sum(axes), share.sum(axes) + target.sum(axes)
    held = target.sum(axes) > 0
    dice = 1 - (2 * common + 1) / (total + 1)
    return loss + torch.where(held, dice, 0.0).sum() / held.sum().clamp(min=1)


def supervised_loss(outputs: Any, target: Tensor, kind: str) -> Tensor:
    """``masked_loss``; of a network that answers at several depths, averaged with weights 1, 1/2, 1/4 ..."""
    if isinstance(outputs, Tensor):
        # DynUNet stacks its answers, all at full size, along axis 1.
        outputs = [outputs] if outputs.ndim == 5 else list(outputs.unbind(1))
    total, weights = target.new_zeros(()), 0.0
    for depth, logits in enumerate(outputs):
        near = target
        if logits.shape[2:] != target.shape[2:]:
            near = F.interpolate(target, size=logits.shape[2:], mode="nearest-exact")
        total = total + masked_loss(logits.float(), near, kind) / 2**depth
        weights += 1 / 2**depth
    return total / weights


def overlaps(logits: Tensor, codes: Tensor) -> Tensor:
    """Per class the voxels found, wrongly found and missed at probability 0.5, int64 (C, 3)."""
    known, truth, found = codes != UNKNOWN, codes >= SURE / 2, logits > 0
    axes = (0, 2, 3, 4)
    counts = [known & found & truth, known & found & ~truth, known & ~found & truth]
    return torch.stack([count.sum(axes) for count in counts], dim=1)


def scores_of(counts: NDArray[np.int64], annotated: Iterable[bool], classes: Sequence[str]) -> ValidationScores:
    """Dice and IoU of the classes annotated somewhere; nothing there and nothing found is 1."""
    scores = {}
    for (tp, fp, fn), seen, name in zip(counts.astype(np.float64), annotated, classes, strict=True):
        if seen:
            wrong = fp + fn
            scores[name] = {
                "dice": float(2 * tp / (2 * tp + wrong)) if tp + wrong else 1.0,
                "iou": float(tp / (tp + wrong)) if tp + wrong else 1.0,
            }
    return scores
