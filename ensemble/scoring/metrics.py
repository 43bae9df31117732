"""What the field measures beside the challenge's scores. Ratios without anything to divide by are None."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ensemble.scoring.objects import OverlapTable
from ensemble.scoring.semantic import VoxelCounts

Metrics = dict[str, float | None]

_SAME_OBJECT_IOU = 0.5


def semantic_metrics(voxels: VoxelCounts) -> Metrics:
    """Dice (which is F1 by another name), IoU, precision and recall of a class; 1 where nothing is anywhere."""
    tp, fp, fn = voxels.tp, voxels.fp, voxels.fn
    if not tp + fp + fn:
        return dict.fromkeys(("dice", "iou", "precision", "recall", "f1"), 1.0)
    f1 = 2 * tp / (2 * tp + fp + fn)
    return {
        "dice": f1,
        "iou": tp / (tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": f1,
    }


@dataclass(frozen=True)
class Partition:
    """How alike two ways of parting a volume into objects are; crops add up.

    ``pairs_*``: ordered pairs of voxels in one object, in both, in the truth's, in the prediction's; voxels
    that are background in the truth are left out. ``split_bits`` and ``merge_bits``: conditional entropies
    times ``voxels``. ``same``: objects with IoU above one half, ``same_iou`` their sum.
    """

    pairs_both: float = 0
    pairs_truth: float = 0
    pairs_predicted: float = 0
    split_bits: float = 0
    merge_bits: float = 0
    voxels: int = 0
    same: int = 0
    same_iou: float = 0
    objects_truth: int = 0
    objects_predicted: int = 0

    def __add__(self, other: "Partition") -> "Partition":
        return Partition(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def partition_of(overlaps: OverlapTable) -> Partition:
    """The counts of one crop."""
    table = overlaps.table.tocoo()
    shared = table.data.astype(np.float64)
    inside = table.row > 0
    truth = overlaps.truth_sizes.astype(np.float64)
    predicted = overlaps.predicted_sizes.astype(np.float64)
    predicted_inside = np.bincount(table.col[inside], shared[inside]).astype(np.float64)
    same = overlaps.iou > _SAME_OBJECT_IOU
    return Partition(
        pairs_both=_pairs(shared[inside]),
        pairs_truth=_pairs(truth[1:]),
        pairs_predicted=_pairs(predicted_inside),
        split_bits=float((shared * np.log2(truth[table.row] / shared)).sum()),
        merge_bits=float((shared * np.log2(predicted[table.col] / shared)).sum()),
        voxels=int(shared.sum()),
        same=int(same.sum()),
        same_iou=float(overlaps.iou[same].sum()),
        objects_truth=len(overlaps.truth_ids),
        objects_predicted=overlaps.predicted,
    )


def _pairs(sizes: NDArray[np.float64]) -> float:
    return float((sizes * (sizes - 1)).sum())


def instance_metrics(counts: Partition) -> Metrics:
    """Adapted Rand error, variation of information (bits) and panoptic quality of a class.

    Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142; Meila 2007, doi:10.1016/j.jmva.2006.11.013;
    Kirillov et al. 2019, arXiv:1801.00868, where objects with IoU above one half are the same.
    """
    rand = _ratio(2 * counts.pairs_both, counts.pairs_truth + counts.pairs_predicted)
    objects = counts.objects_truth + counts.objects_predicted
    return {
        "adapted_rand_error": None if rand is None else 1 - rand,
        "voi_split": _ratio(counts.split_bits, counts.voxels),
        "voi_merge": _ratio(counts.merge_bits, counts.voxels),
        "panoptic_quality": 2 * counts.same_iou / objects if objects else 1.0,
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
