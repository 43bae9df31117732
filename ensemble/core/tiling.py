"""Cutting a crop into what is computed at a time: slabs for whole-crop steps, patches for networks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.core.box import Box, VoxelsZYX, zyx

CHUNK = (64, 128, 128)
"""Chunk of every array this project writes; a slab is one chunk thick."""


def chunk_shape(shape: Sequence[int]) -> VoxelsZYX:
    """CHUNK, no larger than the array."""
    return zyx(min(c, n) for c, n in zip(CHUNK, shape, strict=True))


def slabs(shape: Sequence[int], thickness: int = CHUNK[0]) -> list[Box]:
    """Boxes of ``thickness`` planes, whole along y and x, that cover ``shape`` once."""
    whole = Box.of_shape(shape)
    return list(whole.tiles((thickness, *whole.shape[1:])))


def blocks(shape: Sequence[int], block_shape: Sequence[int] = CHUNK) -> list[Box]:
    """Boxes that cover ``shape`` once, in C order."""
    return list(Box.of_shape(shape).tiles(block_shape))


def patch_starts(length: int, patch: int, overlap: float) -> list[int]:
    """Where patches start along an axis so that they cover it; the last one ends at its end.

    The positions of MONAI's sliding window: steps of int(patch * (1 - overlap)). ``length`` >= ``patch``.
    """
    if length < patch:
        raise ValueError(f"an axis of {length} voxels is shorter than a patch of {patch}")
    step = patch_step(patch, overlap)
    return [min(index * step, length - patch) for index in range(patch_count(length, patch, overlap))]


def even_starts(length: int, patch: int, count: int) -> list[int]:
    """Where so many patches start along an axis, as far from each other as can be, to reach from end to end."""
    return [index * (length - patch) // max(1, count - 1) for index in range(count)]


def patch_step(patch: int, overlap: float) -> int:
    """Voxels from one patch to the next."""
    return patch if overlap == 0 else max(1, int(patch * (1 - overlap)))


def patch_count(length: int, patch: int, overlap: float) -> int:
    """How many patches cover an axis; one that is shorter than a patch is covered by one."""
    return 1 + -(-max(0, length - patch) // patch_step(patch, overlap))


def reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices beyond 0 ... length - 1 mirrored at the border voxels (which are not repeated), however far."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    return np.where(folded >= length, period - folded, folded)
