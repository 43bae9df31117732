"""How large objects are: counted by the power of two that their size reaches."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def histogram(sizes_voxels: np.ndarray) -> dict[str, int]:
    """Objects by the power of two that their size in voxels reaches."""
    bins = np.bincount(np.frexp(sizes_voxels)[1] - 1) if len(sizes_voxels) else ()
    return {str(power): int(count) for power, count in enumerate(bins) if count}


def count_nm3(total: dict[str, int], sizes_voxels: np.ndarray, voxel_size_nm: Sequence[float]) -> None:
    """Add objects to those by the power of two that their size in nm3 reaches."""
    powers = np.frexp(sizes_voxels * math.prod(voxel_size_nm))[1] - 1
    for power, count in zip(*np.unique(powers, return_counts=True), strict=True):
        total[str(power)] = total.get(str(power), 0) + int(count)


def add_nm3(total: dict[str, int], sizes_log2_voxels: Mapping[str, int], voxel_size_nm: Sequence[float]) -> None:
    """Add objects by the power of two of their voxels to those by that of their nm3, which is off by one at most."""
    shift = round(math.log2(math.prod(voxel_size_nm)))
    for power, count in sizes_log2_voxels.items():
        key = str(int(power) + shift)
        total[key] = total.get(key, 0) + count
