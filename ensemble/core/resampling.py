"""Carrying an array from one grid to another by physical position.

The value at a target voxel is the linear interpolant of the source at its centre, averaged over the width by
which the target's voxels are larger than the source's. That reproduces linear functions exactly, so nothing
shifts, whatever the ratio and phase of the grids; on equal grids it is the identity, and at twice the voxel
size the mean of the voxels covered. Beyond the outermost centres the source continues as its border value.
"""

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.core.box import Box, zyx
from ensemble.core.grid import Grid

Interpolation = Literal["linear", "nearest"]


@lru_cache(maxsize=1024)  # asked again by every class of a tile
def support(source: Grid, target: Grid) -> Box:
    """The block of ``source`` that ``target`` is computed from, inside the source's shape and never empty."""
    begins, ends = [], []
    for axis in range(3):
        half = _width_voxels(source, target, axis) / 2
        low = source.position_voxels(axis, target.origin_nm[axis]) - half
        high = low + 2 * half + (target.shape[axis] - 1) * target.voxel_size_nm[axis] / source.voxel_size_nm[axis]
        last = source.shape[axis] - 1
        # rounded, so that parts of one grid agree on what a position touches
        start = min(max(math.floor(round(low, 6)), 0), last)
        begins.append(start)
        ends.append(min(max(math.ceil(round(high, 6)), start), last) + 1)
    return Box(zyx(begins), zyx(ends))


def resample(array: NDArray[Any], source: Grid, target: Grid, method: Interpolation = "linear") -> NDArray[np.float32]:
    """``array`` on ``source`` (axes ..., z, y, x) as float32 on ``target``."""
    out = np.asarray(array, dtype=np.float32)
    for axis, matrix in resampling_matrices(source, target, method):
        out = apply_along(axis, matrix, out)
    return out


def resampling_matrices(
    source: Grid, target: Grid, method: Interpolation = "linear"
) -> list[tuple[int, NDArray[np.float32]]]:
    """What ``resample`` applies one after the other: axes that differ, and weights (target voxels, source voxels).

    The axes that shrink most come first, so that later ones have less to do.
    """
    axes = [axis for axis in range(3) if not _same_axis(source, target, axis)]
    axes.sort(key=lambda axis: target.shape[axis] / source.shape[axis])
    return [(axis, _matrix(*_key(source, target, axis), method)) for axis in axes]


def apply_along(axis: int, matrix: Any, array: Any) -> Any:
    """An array or tensor (..., z, y, x) times a matrix of the same kind along one axis."""
    if axis == 2:
        return array @ matrix.T
    if axis == 1:
        return matrix @ array
    lead, (z, y, x) = array.shape[:-3], array.shape[-3:]
    return (matrix @ array.reshape(*lead, z, y * x)).reshape(*lead, len(matrix), y, x)


def resample_labels(array: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """The label of the nearest source voxel, dtype kept."""
    for axis in range(3):
        position = source.position_voxels(axis, target.centres_nm(axis))
        index = np.clip(np.floor(position + 0.5).astype(np.int64), 0, source.shape[axis] - 1)
        array = np.take(array, index, axis=array.ndim - 3 + axis)
    return array


def _width_voxels(source: Grid, target: Grid, axis: int) -> float:
    """Width of the average, in source voxels."""
    return max(0.0, target.voxel_size_nm[axis] / source.voxel_size_nm[axis] - 1)


def _same_axis(source: Grid, target: Grid, axis: int) -> bool:
    return (source.shape[axis], source.voxel_size_nm[axis], source.origin_nm[axis]) == (
        target.shape[axis],
        target.voxel_size_nm[axis],
        target.origin_nm[axis],
    )


def _key(source: Grid, target: Grid, axis: int) -> tuple[int, int, float, float, float]:
    first = source.position_voxels(axis, target.origin_nm[axis])
    step = target.voxel_size_nm[axis] / source.voxel_size_nm[axis]
    # rounding lets blocks at the same phase share one matrix
    return (
        source.shape[axis],
        target.shape[axis],
        round(first, 6),
        round(step, 9),
        round(_width_voxels(source, target, axis), 9),
    )


@lru_cache(maxsize=256)
def _matrix(
    n_source: int, n_target: int, first: float, step: float, width: float, method: Interpolation
) -> NDArray[np.float32]:
    """Weights of the source voxels (columns) in the target voxels (rows) along one axis; rows sum to 1."""
    centre = first + step * np.arange(n_target)
    last = n_source - 1
    samples = np.arange(n_source)
    if method == "nearest":
        index = np.clip(np.floor(centre + 0.5), 0, last)
        return np.asarray(index[:, None] == samples, np.float32)
    if width < 1e-6:
        weights = np.maximum(0, 1 - np.abs(np.clip(centre, 0, last)[:, None] - samples))
        return np.ascontiguousarray(weights, dtype=np.float32)
    low, high = centre - width / 2, centre + width / 2
    weights = _hat_integral(np.clip(high, 0, last)[:, None] - samples)
    weights -= _hat_integral(np.clip(low, 0, last)[:, None] - samples)
    weights[:, 0] += np.clip(-low, 0, width)
    weights[:, last] += np.clip(high - last, 0, width)
    return np.ascontiguousarray(weights / width, dtype=np.float32)


def _hat_integral(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral up to ``x`` of the linear interpolation kernel max(0, 1 - |x|)."""
    x = np.clip(x, -1, 1)
    integral: NDArray[np.float64] = np.where(x < 0, (x + 1) ** 2 / 2, 1 - (1 - x) ** 2 / 2)
    return integral
