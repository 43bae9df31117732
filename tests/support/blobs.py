"""Masks of balls and blobs, and label volumes read slab by slab."""

import numpy as np
from scipy import ndimage

from ensemble.core.grid import Grid
from ensemble.core.tiling import slabs
from ensemble.methods.components import LabelledObjects

ISOTROPIC = (8.0, 8.0, 8.0)


def balls(shape: tuple, centres_nm: list, radii_nm: list, voxel_size_nm: tuple) -> np.ndarray:
    z, y, x = (i * v for i, v in zip(np.indices(shape), voxel_size_nm, strict=True))
    out = np.zeros(shape, bool)
    for (a, b, c), radius in zip(centres_nm, radii_nm, strict=True):
        out |= (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= radius**2
    return out


def blobs(seed: int, shape: tuple = (140, 26, 30)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2.5)
    return noise > np.quantile(noise, 0.72)


def same_up_to_ids(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def whole(labelled: LabelledObjects, grid: Grid) -> np.ndarray:
    """All labels, read slab by slab."""
    return np.concatenate([labelled.read(slab) for slab in slabs(grid.shape)])
