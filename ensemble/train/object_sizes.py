"""How large the objects are that a network learns from, as its card tells later."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.core import is_instance, slabs
from ensemble.methods import Components, count_sizes_nm3
from ensemble.storage import Volume
from ensemble.train.crops import AnnotatedCrop


def truth_sizes(crops: Sequence[AnnotatedCrop], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """By instance class the crops' objects by the power of two that their size in nm3 reaches.

    An object is an id; where a truth is a mere mask, a 26-connected component. A class that is only annotated by its
    parts has none.
    """
    sizes: dict[str, dict[str, int]] = {}
    for channel, name in enumerate(classes):
        truths = [crop.truths[channel] for crop in crops]
        total: dict[str, int] = {}
        for parts in truths if is_instance(name) else ():
            if parts is not None and len(parts) == 1:
                count_sizes_nm3(total, _sizes_voxels(parts[0]), parts[0].grid.voxel_size_nm)
        if total:
            sizes[name] = dict(sorted(total.items(), key=lambda row: int(row[0])))
    return sizes


def _sizes_voxels(truth: Volume) -> NDArray[np.int64]:
    total: dict[int, int] = {}
    for slab in slabs(truth.grid.shape):
        ids, voxels = np.unique(truth.read(slab), return_counts=True)
        for label, count in zip(ids.tolist(), voxels.tolist(), strict=True):
            total[label] = total.get(label, 0) + count
    total.pop(0, None)
    if total.keys() == {1}:
        return Components.of(truth.grid, lambda box: truth.read(box) > 0).objects.size_voxels
    return np.array(list(total.values()), np.int64)
