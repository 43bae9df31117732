"""Post-processing: what may be done to a class's probability, mask and objects.

Every function here is a method a recipe can name; its keyword-only parameters are the recipe's parameters.
Lengths are in nm and volumes in nm3, or in voxels of the target grid, so that anisotropic voxels are right.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal

import cc3d
import edt
import numpy as np
from bioimage_cpp.segmentation import watershed as quick_flood
from pydantic import Field
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.segmentation import watershed as flood

from ensemble.methods.method_table import Methods, Stage
from ensemble.methods.objects import ObjectTable
from ensemble.support import machine as resources

METHODS = Methods()

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Triple = tuple[float, float, float]

_GAUSSIAN_REACH = 4.0
_TINY_VOXELS = 1 << 12
_LARGE_VOXELS = 1 << 20


# Probability → probability, before the decision.


@METHODS(Stage.PROBABILITY, reach_nm=lambda sigma_nm: _GAUSSIAN_REACH * sigma_nm)
def smooth(probability: np.ndarray, voxel_size_nm: Triple, *, sigma_nm: Positive) -> np.ndarray:
    """The probability averaged with a Gaussian of ``sigma_nm``."""
    sigma = [sigma_nm / v for v in voxel_size_nm]
    return ndimage.gaussian_filter(probability, sigma, mode="nearest", truncate=_GAUSSIAN_REACH)


@METHODS(Stage.PROBABILITY, reach_nm=lambda radius_nm: 2 * radius_nm)
def closing(probability: np.ndarray, voxel_size_nm: Triple, *, radius_nm: Positive) -> np.ndarray:
    """Grey closing with a box of ``radius_nm`` to either side: gaps narrower than that are bridged."""
    return ndimage.grey_closing(probability, size=_box(radius_nm, voxel_size_nm), mode="nearest")


@METHODS(Stage.PROBABILITY, reach_nm=lambda radius_nm: 2 * radius_nm)
def opening(probability: np.ndarray, voxel_size_nm: Triple, *, radius_nm: Positive) -> np.ndarray:
    """Grey opening with a box of ``radius_nm`` to either side: bridges narrower than that are cut."""
    return ndimage.grey_opening(probability, size=_box(radius_nm, voxel_size_nm), mode="nearest")


def _box(radius_nm: float, voxel_size_nm: Triple) -> list[int]:
    return [2 * round(radius_nm / v) + 1 for v in voxel_size_nm]


# Holes: which background components, 6-connected and away from the crop's border, to fill.


@METHODS(Stage.FILL)
def fill_holes(holes: ObjectTable, *, max_size_nm3: Positive | None = None) -> np.ndarray:
    """All holes, or those of at most ``max_size_nm3``: bool (n,)."""
    if max_size_nm3 is None:
        return np.ones(len(holes), bool)
    return holes.size_voxels * holes.voxel_volume_nm3 <= max_size_nm3


# ObjectTable: which stay.


@METHODS(Stage.FILTER, exactly_one=("min_size_nm3", "min_size_voxels"))
def drop_small(
    objects: ObjectTable, *, min_size_nm3: Positive | None = None, min_size_voxels: Count | None = None
) -> np.ndarray:
    """ObjectTable of at least the minimum size: bool (n,)."""
    if min_size_voxels is not None:
        return objects.size_voxels >= min_size_voxels
    return objects.size_voxels * objects.voxel_volume_nm3 >= min_size_nm3 * (1 - 1e-9)


@METHODS(Stage.FILTER)
def keep_largest(objects: ObjectTable, *, count: Count = 1) -> np.ndarray:
    """The ``count`` largest objects, of equal ones the first: bool (n,)."""
    keep = np.zeros(len(objects), bool)
    keep[np.argsort(-objects.size_voxels, kind="stable")[:count]] = True
    return keep


@METHODS(Stage.FILTER, needs_probability=True)
def hysteresis(objects: ObjectTable, *, high: Probability) -> np.ndarray:
    """ObjectTable that exceed ``high`` somewhere; the class's threshold is the low one: bool (n,)."""
    return objects.peak_probability > high


@METHODS(Stage.FILTER)
def drop_at_border(objects: ObjectTable) -> np.ndarray:
    """ObjectTable that do not touch the crop's border: bool (n,)."""
    return ~objects.touches_border


# Labels: one 26-connected component → its objects, numbered from 1 and nonzero exactly on the component.
# ``bytes_per_voxel``: about what that takes at its peak for each voxel of the component's box, where not 20.
# ``undivided_below_nm``: a component that reaches less far than this along each axis is one object.


@METHODS(Stage.LABEL, indivisible=lambda: True)
def binary(component: np.ndarray, voxel_size_nm: Triple, seeds: np.ndarray | None) -> np.ndarray:
    """The mask itself: the server tells objects apart by connected components."""
    return component.astype(np.uint32)


@METHODS(Stage.LABEL, indivisible=lambda connectivity: connectivity == 26)
def components(
    component: np.ndarray,
    voxel_size_nm: Triple,
    seeds: np.ndarray | None,
    *,
    connectivity: Literal[6, 18, 26] = 26,
) -> np.ndarray:
    """Connected components with 6, 18 or 26 neighbours."""
    return cc3d.connected_components(component, connectivity=connectivity, out_dtype=np.uint32)


@METHODS(Stage.LABEL, indivisible=lambda: False, needs_ids=True, bytes_per_voxel=60)
def keep_ids(component: np.ndarray, voxel_size_nm: Triple, seeds: np.ndarray | None) -> np.ndarray:
    """The ids of the ``labels`` source; voxels without one join the nearest object along the mask."""
    ids = np.where(component, seeds, 0) if seeds is not None else np.zeros(component.shape, np.uint8)
    if not ids.any():
        return component.astype(np.uint32)
    known, markers = np.unique(ids, return_inverse=True)
    first = 0 if known[0] == 0 else 1
    markers = markers.reshape(component.shape).astype(np.int32) + first
    flat = np.zeros(component.shape, np.uint8)
    return flood(flat, markers, connectivity=3, mask=component).astype(np.uint32)


@METHODS(
    Stage.LABEL,
    exactly_one=("min_distance_nm", "min_distance_voxels"),
    indivisible=lambda min_distance_nm, min_distance_voxels, seeds_from: False,
    undivided_below_nm=lambda voxel_size_nm, min_distance_nm, min_distance_voxels, seeds_from: (
        None if seeds_from else _radius_nm(voxel_size_nm, min_distance_nm, min_distance_voxels)
    ),
)
def watershed(
    component: np.ndarray,
    voxel_size_nm: Triple,
    seeds: np.ndarray | None,
    *,
    min_distance_nm: Positive | None = None,
    min_distance_voxels: Count | None = None,
    seeds_from: str | None = None,
) -> np.ndarray:
    """Basins of the distance to the mask's border, from seeds at its peaks.

    Peaks nearer to each other than ``min_distance`` along every axis count as the highest of them. With
    ``seeds_from`` the seeds are the connected components of that class instead. A component without a seed is
    one object. This is scikit-image's chain for each component alone: so a small object beside a large one
    keeps its seed, distances are in nm whatever the voxels, and the array's border is no end of an object.
    Beyond a million voxels the flooding is bioimage-cpp's, several times as quick: voxels equally far from the
    border may then fall to the neighbouring object; the seeds, and so the number of objects, are the same.
    """
    if seeds is not None:
        markers = cc3d.connected_components(seeds.astype(bool) & component, connectivity=26, out_dtype=np.uint32)
        if markers.max() <= 1:
            return component.astype(np.uint32)
        distance = _distance_nm(component, voxel_size_nm)
        return _flooded(distance, markers.view(np.int32), component)
    if component.all():  # no border, so no distance and no peaks
        return component.astype(np.uint32)
    radius_nm = _radius_nm(voxel_size_nm, min_distance_nm, min_distance_voxels)
    extent_nm = [(n - 1) * v for n, v in zip(component.shape, voxel_size_nm, strict=True)]
    if all(extent < radius for extent, radius in zip(extent_nm, radius_nm, strict=True)):
        return component.astype(np.uint32)
    distance = _distance_nm(component, voxel_size_nm)
    peaks = _peaks(distance, component, [r / v for r, v in zip(radius_nm, voxel_size_nm, strict=True)])
    if len(peaks) <= 1:
        return component.astype(np.uint32)
    markers = np.zeros(component.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return _flooded(distance, markers, component)


def _radius_nm(voxel_size_nm: Triple, min_distance_nm: float | None, min_distance_voxels: int | None) -> list[float]:
    """How near two peaks must be along every axis to count as one."""
    return [min_distance_nm] * 3 if min_distance_nm else [min_distance_voxels * v for v in voxel_size_nm]


def _distance_nm(mask: np.ndarray, voxel_size_nm: Triple) -> np.ndarray:
    """Distance to the nearest voxel outside the mask, float32; the array's border is not outside."""
    if mask.size < _TINY_VOXELS:  # edt starts a thread, which takes longer than the distances
        return ndimage.distance_transform_edt(mask, sampling=voxel_size_nm).astype(np.float32)
    threads = 0 if mask.size > _LARGE_VOXELS else 1  # 0: as many as there are cores; the result is the same
    # the same of uint8 takes a quarter of the time that it takes of bool
    numbers = np.ascontiguousarray(mask).view(np.uint8)
    return edt.edt(numbers, anisotropy=voxel_size_nm, black_border=False, parallel=threads)


def _peaks(distance: np.ndarray, mask: np.ndarray, radius_voxels: list[float]) -> np.ndarray:
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


def _local_maxima(distance: np.ndarray, mask: np.ndarray, reach: list[int]) -> np.ndarray:
    """Voxels of the mask (k, 3) that nothing within ``reach`` along every axis exceeds; a few planes at a time."""
    planes = max(_LARGE_VOXELS // distance[0].size, 6 * reach[0], 1)

    def within(start: int) -> np.ndarray:
        above, stop = max(start - reach[0], 0), min(start + planes, len(distance))
        around = distance[above : stop + reach[0]]
        highest = ndimage.maximum_filter(around, size=[2 * r + 1 for r in reach], mode="nearest")
        here = distance[start:stop] == highest[start - above : stop - above]
        return np.argwhere(mask[start:stop] & here) + (start, 0, 0)

    starts = range(0, len(distance), planes)
    if len(starts) == 1:
        return within(0)
    with ThreadPoolExecutor(resources.cores()) as pool:
        return np.concatenate(list(pool.map(within, starts)))


def _flooded(distance: np.ndarray, markers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The basins of the distance, which is used up."""
    flooding = quick_flood if np.count_nonzero(mask) > _LARGE_VOXELS else flood
    return _completed(flooding(np.negative(distance, out=distance), markers, mask=mask), mask)


def _completed(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
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
