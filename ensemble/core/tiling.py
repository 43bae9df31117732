"""Cutting a crop into what is computed at a time: slabs for whole-crop steps, patches for networks."""

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np

CHUNK = (64, 128, 128)
"""Chunk of every array this project writes; a slab is one chunk thick."""


def chunk_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """CHUNK, no larger than the array."""
    return tuple(min(c, n) for c, n in zip(CHUNK, shape, strict=True))


def slabs(depth: int, thickness: int = CHUNK[0]) -> list[tuple[int, int]]:
    """Bounds (start, stop) along z that cover ``depth`` planes."""
    return list(pairwise([*range(0, depth, thickness), depth]))


def blocks(shape: Sequence[int], block: Sequence[int] = CHUNK) -> list[tuple[slice, slice, slice]]:
    """Blocks that cover ``shape`` once, in C order."""
    axes = [[slice(a, b) for a, b in pairwise([*range(0, n, s), n])] for n, s in zip(shape, block, strict=True)]
    return list(product(*axes))


def patch_starts(length: int, patch: int, overlap: float) -> list[int]:
    """Where patches start along an axis so that they cover it; the last one ends at its end.

    The positions of MONAI's sliding window: steps of int(patch * (1 - overlap)). ``length`` >= ``patch``.
    """
    if length < patch:
        raise ValueError(f"an axis of {length} voxels is shorter than a patch of {patch}")
    step = patch if overlap == 0 else max(1, int(patch * (1 - overlap)))
    count = 1 + -(-(length - patch) // step)
    return [min(index * step, length - patch) for index in range(count)]


def reflect(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond 0 ... length - 1 mirrored at the border voxels (which are not repeated), however far."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    return np.where(folded >= length, period - folded, folded)
