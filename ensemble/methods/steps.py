"""Post-processing: what may be done to a class's probability, mask and objects.

Every function here is a method a recipe can name; its keyword-only parameters are the recipe's parameters.
Lengths are in nm and volumes in nm3, or in voxels of the target grid, so that anisotropic voxels are right.
"""

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed as flood

from ensemble.core import NmZYX, VoxelsZYX, zyx
from ensemble.methods.flooding import Ids, Mask, Values, basins, distance_nm, peaks_of
from ensemble.methods.method_table import MethodTable, Stage, Traits
from ensemble.methods.objects import ObjectTable
from ensemble.methods.ranges import Count, Fraction, LengthNm, VolumeNm3

METHODS = MethodTable()
"""Every post-processing method, by the name a recipe uses."""

_GAUSSIAN_REACH = 4.0


# Probability → probability, before the decision.


@METHODS(Stage.PROBABILITY, Traits(reach_nm=lambda sigma_nm: _GAUSSIAN_REACH * float(sigma_nm)))
def smooth(probability: Values, voxel_size_nm: NmZYX, *, sigma_nm: LengthNm) -> Values:
    """The probability averaged with a Gaussian of ``sigma_nm``."""
    sigma = [sigma_nm / v for v in voxel_size_nm]
    return ndimage.gaussian_filter(probability, sigma, mode="nearest", truncate=_GAUSSIAN_REACH)


@METHODS(Stage.PROBABILITY, Traits(reach_nm=lambda radius_nm: 2 * float(radius_nm)))
def closing(probability: Values, voxel_size_nm: NmZYX, *, radius_nm: LengthNm) -> Values:
    """Grey closing with a box of ``radius_nm`` to either side: gaps narrower than that are bridged."""
    changed: Values = ndimage.grey_closing(probability, size=_box(radius_nm, voxel_size_nm), mode="nearest")
    return changed


@METHODS(Stage.PROBABILITY, Traits(reach_nm=lambda radius_nm: 2 * float(radius_nm)))
def opening(probability: Values, voxel_size_nm: NmZYX, *, radius_nm: LengthNm) -> Values:
    """Grey opening with a box of ``radius_nm`` to either side: bridges narrower than that are cut."""
    changed: Values = ndimage.grey_opening(probability, size=_box(radius_nm, voxel_size_nm), mode="nearest")
    return changed


def _box(radius_nm: float, voxel_size_nm: NmZYX) -> VoxelsZYX:
    return zyx(2 * round(radius_nm / v) + 1 for v in voxel_size_nm)


# Holes: which background components, 6-connected and away from the crop's border, to fill.


@METHODS(Stage.FILL)
def fill_holes(holes: ObjectTable, *, max_size_nm3: VolumeNm3 | None = None) -> Mask:
    """All holes, or those of at most ``max_size_nm3``: bool (n,)."""
    if max_size_nm3 is None:
        return np.ones(len(holes), bool)
    return holes.size_voxels * holes.voxel_volume_nm3 <= max_size_nm3


# Objects: which stay.


@METHODS(Stage.FILTER, exactly_one=("min_size_nm3", "min_size_voxels"))
def drop_small(
    objects: ObjectTable, *, min_size_nm3: VolumeNm3 | None = None, min_size_voxels: Count | None = None
) -> Mask:
    """Objects of at least the minimum size: bool (n,)."""
    if min_size_voxels is not None:
        return objects.size_voxels >= min_size_voxels
    assert min_size_nm3 is not None  # a recipe gives exactly one of them
    return objects.size_voxels * objects.voxel_volume_nm3 >= min_size_nm3 * (1 - 1e-9)


@METHODS(Stage.FILTER)
def keep_largest(objects: ObjectTable, *, count: Count = 1) -> Mask:
    """The ``count`` largest objects, of equal ones the first: bool (n,)."""
    keep = np.zeros(len(objects), bool)
    keep[np.argsort(-objects.size_voxels, kind="stable")[:count]] = True
    return keep


@METHODS(Stage.FILTER, Traits(needs_probability=True))
def hysteresis(objects: ObjectTable, *, high: Fraction) -> Mask:
    """Objects that exceed ``high`` somewhere; the class's threshold is the low one: bool (n,)."""
    return objects.peak_probability > high


@METHODS(Stage.FILTER)
def drop_at_border(objects: ObjectTable) -> Mask:
    """Objects that do not touch the crop's border: bool (n,)."""
    return ~objects.touches_border


# Labels: one 26-connected component → its objects, numbered from 1 and nonzero exactly on the component.


@METHODS(Stage.LABEL, Traits(indivisible=lambda: True, gives_ids=False))
def binary(component: Mask, voxel_size_nm: NmZYX, seeds: Ids | None) -> NDArray[np.uint32]:
    """The mask itself: the server tells objects apart by connected components."""
    return component.astype(np.uint32)


@METHODS(Stage.LABEL, Traits(indivisible=lambda connectivity: bool(connectivity == 26)))
def components(
    component: Mask,
    voxel_size_nm: NmZYX,
    seeds: Ids | None,
    *,
    connectivity: Literal[6, 18, 26] = 26,
) -> NDArray[np.uint32]:
    """Connected components with 6, 18 or 26 neighbours."""
    labels = cc3d.connected_components(component, connectivity=connectivity, out_dtype=np.uint32)
    return np.asarray(labels, np.uint32)


@METHODS(Stage.LABEL, Traits(needs_ids=True, bytes_per_voxel=60))
def keep_ids(component: Mask, voxel_size_nm: NmZYX, seeds: Ids | None) -> NDArray[np.uint32]:
    """The ids of the ``labels`` source; voxels without one join the nearest object along the mask."""
    ids = np.where(component, seeds, 0) if seeds is not None else np.zeros(component.shape, np.uint8)
    if not ids.any():
        return component.astype(np.uint32)
    present, numbers = np.unique(ids, return_inverse=True)
    first = 0 if present[0] == 0 else 1
    markers = numbers.reshape(component.shape).astype(np.int32) + first
    flat = np.zeros(component.shape, np.uint8)
    return np.asarray(flood(flat, markers, connectivity=3, mask=component), np.uint32)


def _one_object_below_nm(
    voxel_size_nm: NmZYX, min_distance_nm: float | None, min_distance_voxels: int | None, seeds_from: str | None
) -> list[float] | None:
    return None if seeds_from else _radius_nm(voxel_size_nm, min_distance_nm, min_distance_voxels)


@METHODS(
    Stage.LABEL,
    Traits(undivided_below_nm=_one_object_below_nm),
    exactly_one=("min_distance_nm", "min_distance_voxels"),
)
def watershed(
    component: Mask,
    voxel_size_nm: NmZYX,
    seeds: Ids | None,
    *,
    min_distance_nm: LengthNm | None = None,
    min_distance_voxels: Count | None = None,
    seeds_from: str | None = None,
) -> NDArray[np.uint32]:
    """Basins of the distance to the mask's border, from seeds at its peaks.

    Peaks nearer to each other than ``min_distance`` along every axis count as the highest of them. With
    ``seeds_from`` the seeds are the connected components of that class instead. A component without a seed is
    one object. This is scikit-image's chain for each component alone: so a small object beside a large one
    keeps its seed, distances are in nm whatever the voxels, and the array's border is no end of an object.
    Beyond a million voxels the flooding is bioimage-cpp's, several times as quick: voxels equally far from the
    border may then fall to the neighbouring object; the seeds, and so the number of objects, are the same.
    """
    if seeds is not None:
        given = cc3d.connected_components(seeds.astype(bool) & component, connectivity=26, out_dtype=np.uint32)
        if given.max() <= 1:
            return component.astype(np.uint32)
        distance = distance_nm(component, voxel_size_nm)
        return basins(distance, given.view(np.int32), component)
    if component.all():  # no border, so no distance and no peaks
        return component.astype(np.uint32)
    radius_nm = _radius_nm(voxel_size_nm, min_distance_nm, min_distance_voxels)
    extent_nm = [(n - 1) * v for n, v in zip(component.shape, voxel_size_nm, strict=True)]
    if all(extent < radius for extent, radius in zip(extent_nm, radius_nm, strict=True)):
        return component.astype(np.uint32)
    distance = distance_nm(component, voxel_size_nm)
    peaks = peaks_of(distance, component, [r / v for r, v in zip(radius_nm, voxel_size_nm, strict=True)])
    if len(peaks) <= 1:
        return component.astype(np.uint32)
    markers = np.zeros(component.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return basins(distance, markers, component)


def _radius_nm(voxel_size_nm: NmZYX, min_distance_nm: float | None, min_distance_voxels: int | None) -> list[float]:
    """How near two peaks must be along every axis to count as one."""
    if min_distance_nm is not None:
        return [min_distance_nm] * 3
    assert min_distance_voxels is not None  # a recipe gives exactly one of them
    return [min_distance_voxels * v for v in voxel_size_nm]
