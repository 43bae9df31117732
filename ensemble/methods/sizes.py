"""How large objects are: counted by the power of two that their size reaches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def size_histogram(sizes: NDArray[Any]) -> dict[str, int]:
    """Objects by the power of two that their size reaches."""
    powers, counts = np.unique(np.frexp(sizes)[1] - 1, return_counts=True)
    return {str(power): int(count) for power, count in zip(powers, counts, strict=True)}


def count_sizes_nm3(total: dict[str, int], sizes_voxels: NDArray[Any], voxel_size_nm: Sequence[float]) -> None:
    """Add objects to those by the power of two that their size in nm3 reaches."""
    for power, count in size_histogram(sizes_voxels * math.prod(voxel_size_nm)).items():
        total[power] = total.get(power, 0) + count


def add_sizes_nm3(total: dict[str, int], sizes_log2_voxels: Mapping[str, int], voxel_size_nm: Sequence[float]) -> None:
    """Add objects by the power of two of their voxels to those by that of their nm3, which is off by one at most."""
    shift = round(math.log2(math.prod(voxel_size_nm)))
    for power, count in sizes_log2_voxels.items():
        key = str(int(power) + shift)
        total[key] = total.get(key, 0) + count
