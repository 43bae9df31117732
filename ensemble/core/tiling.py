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
    step = patch if overlap == 0 else max(1, int(patch * (1 - overlap)))
    count = 1 + -(-(length - patch) // step)
    return [min(index * step, length - patch) for index in range(count)]


def reflect(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices beyond 0 ... length - 1 mirrored at the border voxels (which are not repeated), however far."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    return np.where(folded >= length, period - folded, folded)
