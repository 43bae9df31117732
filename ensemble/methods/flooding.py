"""Distances, their peaks, and basins flooded from seeds, inside one component's box."""

from typing import Any

import edt
import numpy as np
from bioimage_cpp.segmentation import watershed as quick_flood
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed as flood

from ensemble.core import NmZYX
from ensemble.support import cores, in_threads

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Ids = NDArray[Any]

_TINY_VOXELS = 1 << 12


_LARGE_VOXELS = 1 << 20


def distance_nm(mask: Mask, voxel_size_nm: NmZYX) -> Values:
    """Distance to the nearest voxel outside the mask, float32; the array's border is not outside."""
    if mask.size < _TINY_VOXELS:  # edt starts a thread, which takes longer than the distances
        return np.asarray(ndimage.distance_transform_edt(mask, sampling=voxel_size_nm), np.float32)
    threads = 0 if mask.size > _LARGE_VOXELS else 1  # 0: as many as there are cores; the result is the same
    # the same of uint8 takes a quarter of the time that it takes of bool
    numbers = np.ascontiguousarray(mask).view(np.uint8)
    distance: Values = edt.edt(numbers, anisotropy=voxel_size_nm, black_border=False, parallel=threads)
    return distance


def peaks_of(distance: Values, mask: Mask, radius_voxels: list[float]) -> NDArray[np.int64]:
    """Local maxima (k, 3), highest first, no two nearer than the radius along every axis."""
    candidates = _local_maxima(distance, mask, [int(r + 1e-9) for r in radius_voxels])
    order = np.argsort(-distance[tuple(candidates.T)], kind="stable")
    candidates = candidates[order]
    if len(candidates) == 1:
        return candidates
    scaled = candidates / np.asarray(radius_voxels)
    near = cKDTree(scaled).query_ball_point(scaled, r=1 - 1e-9, p=np.inf)
    open_ = np.ones(len(candidates), bool)
    accepted = []
    for index, neighbours in enumerate(near):
        if open_[index]:
            accepted.append(index)
            open_[neighbours] = False
    return candidates[accepted]


def _local_maxima(distance: Values, mask: Mask, reach: list[int]) -> NDArray[np.int64]:
    """Voxels of the mask (k, 3) that nothing within ``reach`` along every axis exceeds; a few planes at a time."""
    planes = max(_LARGE_VOXELS // distance[0].size, 6 * reach[0], 1)

    def within(start: int) -> NDArray[np.int64]:
        above, stop = max(start - reach[0], 0), min(start + planes, len(distance))
        around = distance[above : stop + reach[0]]
        highest = ndimage.maximum_filter(around, size=[2 * r + 1 for r in reach], mode="nearest")
        here = distance[start:stop] == highest[start - above : stop - above]
        return np.argwhere(mask[start:stop] & here) + (start, 0, 0)

    starts = range(0, len(distance), planes)
    if len(starts) == 1:
        return within(0)
    return np.concatenate(list(in_threads(cores(), within, starts)))


def basins(distance: Values, markers: NDArray[np.int32], mask: Mask) -> NDArray[np.uint32]:
    """The basins of the distance, which is used up."""
    flooding = quick_flood if np.count_nonzero(mask) > _LARGE_VOXELS else flood
    return _completed(flooding(np.negative(distance, out=distance), markers, mask=mask), mask)


def _completed(labels: NDArray[np.int32], mask: Mask) -> NDArray[np.uint32]:
    """Every voxel of the mask labelled: ring by ring, those without take the largest label beside them.

    ``mask`` is one 26-connected component, of which ``labels`` (int32, some not 0; changed in place) lack little.
    """
    shape = np.array(mask.shape)
    around = np.array(list(np.ndindex(3, 3, 3))) - 1
    missing = np.argwhere((labels == 0) & mask)
    while len(missing):
        beside = missing[:, None] + around
        inside = ((beside >= 0) & (beside < shape)).all(axis=2)
        values = labels[tuple(np.where(inside[..., None], beside, 0).transpose(2, 0, 1))]
        found = np.where(inside, values, 0).max(axis=1)
        labels[tuple(missing.T)] = found
        missing = missing[found == 0]
    return labels.view(np.uint32)
