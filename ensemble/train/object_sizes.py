"""How large the objects are that a network learns from, as its card tells later."""

from collections.abc import Sequence

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.box import Slices
from ensemble.core.tiling import slabs
from ensemble.methods import sizes
from ensemble.methods.components import Components
from ensemble.storage.volume import Volume
from ensemble.train.crops import AnnotatedCrop


def truth_sizes(crops: Sequence[AnnotatedCrop], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """By instance class the crops' objects by the power of two that their size in nm3 reaches.

    An object is an id; where a truth is a mere mask, a 26-connected component. A class that is only annotated by its
    parts has none.
    """
    found: dict[str, dict[str, int]] = {}
    for channel, name in enumerate(classes):
        truths = [crop.truths[channel] for crop in crops]
        total: dict[str, int] = {}
        for parts in truths if taxonomy.is_instance(name) else ():
            if parts is not None and len(parts) == 1:
                sizes.count_sizes_nm3(total, _sizes_voxels(parts[0]), parts[0].grid.voxel_size_nm)
        if total:
            found[name] = dict(sorted(total.items(), key=lambda row: int(row[0])))
    return found


def _sizes_voxels(truth: Volume) -> np.ndarray:
    shape = truth.grid.shape
    total: dict[int, int] = {}
    for start, stop in slabs(shape[0]):
        ids, voxels = np.unique(truth.read(_slab(start, stop, shape)), return_counts=True)
        for one, count in zip(ids.tolist(), voxels.tolist(), strict=True):
            total[one] = total.get(one, 0) + count
    total.pop(0, None)
    if total.keys() == {1}:
        return Components(truth.grid, lambda block: truth.read(block) > 0).objects.size_voxels
    return np.array(list(total.values()), np.int64)


def _slab(start: int, stop: int, shape: Sequence[int]) -> Slices:
    return (slice(start, stop), slice(0, shape[1]), slice(0, shape[2]))
