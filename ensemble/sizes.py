"""How large objects are: counted by the power of two that their size reaches."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def histogram(sizes_voxels: np.ndarray) -> dict[str, int]:
    """Objects by the power of two that their size in voxels reaches."""
    bins = np.bincount(np.frexp(sizes_voxels)[1] - 1) if len(sizes_voxels) else ()
    return {str(power): int(count) for power, count in enumerate(bins) if count}


def add_nm3(total: dict[str, int], sizes_log2_voxels: Mapping[str, int], voxel_size_nm: Sequence[float]) -> None:
    """Add objects by the power of two of their voxels to those by the power of two of their nm3."""
    shift = round(math.log2(math.prod(voxel_size_nm)))
    for power, count in sizes_log2_voxels.items():
        key = str(int(power) + shift)
        total[key] = total.get(key, 0) + count
