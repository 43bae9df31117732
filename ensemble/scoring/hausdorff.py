"""How far two objects are apart: the exact Hausdorff distance of sets of voxels.

Both objects lie in the union of their bounding boxes, so nothing outside of it is looked at. In a box that is
well filled a distance transform in single precision tells which voxels are the farthest, and their distances
are then computed anew; few voxels in a vast box are looked up in a tree of the others' surface.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import edt
import numpy as np
from bioimage_cpp.distance import distance_transform
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ensemble.core import Box, NmZYX

Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]
"""Of voxels, shape (n, 3)."""

LARGE_VOXELS = 2**21
"""In a larger box, memory counts for more than speed."""

_ONE_AT_A_TIME = threading.Lock()
"""Large boxes take turns, whatever the crop and class."""

_RELATIVE_ERROR = 1e-6
"""More than the relative error of a distance in single precision."""

_POINT_COST, _TARGET_COST = 100, 25
"""Of looking up a voxel, and of having one in the tree, where transforming a voxel of a box costs 1."""


@dataclass(frozen=True)
class Body:
    """The voxels of one id of a volume; all of them lie in ``around``."""

    labels: NDArray[Any]
    id: int
    around: Box
    size: int

    def mask(self, box: Box) -> Mask:
        """Its voxels in a box."""
        return np.asarray(self.labels[box.slices] == self.id)

    def voxels(self) -> Indices:
        """All its voxels."""
        return _indices(self.mask(self.around)) + self.around.start

    def surface(self) -> Indices:
        """Those with a neighbour across a face that is not of the body."""
        box = self.around.grown(1).intersect(Box.of_shape(self.labels.shape))
        return _indices(_surface(self.mask(box))) + box.start


@dataclass(frozen=True)
class _Way:
    """From every voxel of ``points`` to the nearest voxel of ``targets``; ``touching`` if they share any."""

    points: Body
    targets: Sequence[Body]
    touching: bool
    voxel_size_nm: NDArray[np.float64]

    @cached_property
    def targets_box(self) -> Box:
        return reduce(Box.union, (target.around for target in self.targets))

    def at_least_nm(self) -> float:
        """Some voxel is at least so far from all targets, as the boxes tell."""
        (start, stop), (first, end) = self._bounds(self.points.around), self._bounds(self.targets_box)
        beyond = np.maximum(first - start, stop - end).clip(min=0)
        between = np.maximum(first - stop, start - end) + 1
        apart = np.linalg.norm(between.clip(min=0) * self.voxel_size_nm)
        return float(max((beyond * self.voxel_size_nm).max(), apart))

    @staticmethod
    def _bounds(box: Box) -> NDArray[np.int64]:
        return np.array([box.start, box.stop])

    def at_most_nm(self) -> float:
        """No voxel is farther than this from a voxel that both share."""
        if not self.touching:
            return np.inf
        return float(np.linalg.norm(np.array(self.points.around.shape) * self.voxel_size_nm))

    def domain(self) -> Box:
        """All voxels, and of the targets all that can be nearest."""
        whole = self.points.around.union(self.targets_box)
        return _grown(self.points.around, self.at_most_nm() / self.voxel_size_nm + 1, whole)


def hausdorff_nm(
    true: Body,
    predicted: Sequence[Body],
    touching: Sequence[bool],
    voxel_size_nm: NmZYX,
    limit_nm: float,
    threads: int = 1,
) -> float:
    """The distance in nm of a body from one made up of others, at most ``limit_nm``.

    ``touching`` says which of the others share voxels with it.
    """
    scale = np.asarray(voxel_size_nm, np.float64)
    ways = [_Way(body, [true], touches, scale) for body, touches in zip(predicted, touching, strict=True)]
    ways.append(_Way(true, predicted, any(touching), scale))
    farthest = max(way.at_least_nm() for way in ways)
    for way in sorted(ways, key=_Way.at_most_nm, reverse=True):
        if farthest >= limit_nm:
            return limit_nm
        if way.at_most_nm() > farthest:
            farthest = max(farthest, _directed_nm(way, threads))
    return min(farthest, limit_nm)


def _directed_nm(way: _Way, threads: int) -> float:
    domain = way.domain()
    looked_up = _POINT_COST * way.points.size + _TARGET_COST * sum(target.size for target in way.targets)
    if looked_up < domain.size:
        return _by_tree(way)
    with _ONE_AT_A_TIME if domain.size > LARGE_VOXELS else nullcontext():
        targets = way.targets[0].mask(domain)
        for other in way.targets[1:]:
            targets |= other.mask(domain)
        return _by_transform(way.points.mask(domain), targets, way.voxel_size_nm, threads)


def _by_tree(way: _Way) -> float:
    points = way.points.voxels()
    surface = np.concatenate([target.surface() for target in way.targets])
    inside = np.zeros(len(points), bool)
    for target in way.targets:
        inside |= target.labels[tuple(points.T)] == target.id
    points = points[~inside]
    return float(_nearest_nm(points, surface, way.voxel_size_nm).max(initial=0.0))


def _by_transform(points: Mask, targets: Mask, voxel_size_nm: NDArray[np.float64], threads: int) -> float:
    if not (points > targets).any():
        return 0.0
    distances = _distances_nm(targets, voxel_size_nm, threads)
    distances *= points
    highest = float(distances.max())
    farthest = _indices(distances >= highest * (1 - _RELATIVE_ERROR))
    near = _surface_near(farthest, targets, highest * (1 + _RELATIVE_ERROR), voxel_size_nm)
    return float(_nearest_nm(farthest, near, voxel_size_nm).max())


def _distances_nm(targets: Mask, voxel_size_nm: NDArray[np.float64], threads: int) -> NDArray[np.float32]:
    """From every voxel to the nearest target.

    Of two transforms of the same answers one is twice as fast on small boxes and leaves other threads alone,
    the other needs a third of the memory.
    """
    distances: NDArray[np.float32]
    if targets.size <= LARGE_VOXELS:
        distances = distance_transform(~targets, sampling=tuple(voxel_size_nm))
    else:
        elsewhere = np.ascontiguousarray(~targets).view(np.uint8)
        distances = edt.edt(elsewhere, anisotropy=tuple(voxel_size_nm), black_border=False, parallel=threads)
    return distances


def _surface_near(points: Indices, targets: Mask, reach_nm: float, voxel_size_nm: NDArray[np.float64]) -> Indices:
    """The surface of ``targets`` as far as it lies within reach of the box around ``points``."""
    own = Box(points.min(axis=0), points.max(axis=0) + 1)
    window = _grown(own, reach_nm / voxel_size_nm + 1, Box.of_shape(targets.shape))
    near = _indices(_surface(targets[window.slices])) + window.start
    beyond = np.maximum(own.start - near, near - own.stop + 1).clip(min=0) * voxel_size_nm
    return np.asarray(near[(beyond**2).sum(axis=1) <= reach_nm**2])


def _nearest_nm(points: Indices, targets: Indices, voxel_size_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exact distance from every one of ``points`` to the nearest of ``targets``."""
    tree = cKDTree(targets * voxel_size_nm, balanced_tree=False, compact_nodes=False)
    nearest = targets[tree.query(points * voxel_size_nm)[1]]
    # summed z, y, x like the official scorer's transform, so that the last bit agrees
    z, y, x = (((points - nearest) * voxel_size_nm) ** 2).T
    return np.asarray(np.sqrt(z + y + x))


def _grown(box: Box, by_voxels: NDArray[np.float64], limit: Box) -> Box:
    """Larger on all sides, whole voxels, inside of a limit; the margin may be endless."""
    return box.grown(np.minimum(by_voxels, limit.shape).astype(np.int64).tolist()).intersect(limit)


def _indices(mask: Mask) -> Indices:
    """Of the voxels of a mask, like argwhere in a third of the time."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _surface(mask: Mask) -> Mask:
    """The voxels of a mask with a neighbour across a face that is not in it; only they can be nearest."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        here, there = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        here[axis], there[axis] = slice(1, None), slice(None, -1)
        inside[tuple(here)] &= mask[tuple(there)]
        inside[tuple(there)] &= mask[tuple(here)]
    return np.asarray(mask & ~inside)
