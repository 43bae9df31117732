"""Truth: a plain array per crop and class, found and laid on the manifest's grid."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Grid, Target, is_instance
from ensemble.storage.addresses import Location, is_url, plain
from ensemble.storage.nodes import exist
from ensemble.storage.opening import open_volume, truth_place
from ensemble.storage.volume import Volume
from ensemble.support import VolumeError


def open_truth(root: Location, target: Target, name: str) -> Volume | None:
    """From TRUTH/{crop}/{class}, or from where training data keeps it; None when it is in neither."""
    beside_em = truth_place(root, target.dataset, target.crop)
    for place in (f"{str(root).rstrip('/')}/{target.group}/{name}", f"{beside_em}/{name}"):
        if _is_there(place):
            # one that does not say where it lies is taken to lie where it is expected
            volume = open_volume(place, expected=target.grid)
            what = misplaced(volume.grid, target.grid)
            if what:
                raise VolumeError(f"{place}: {what}")
            return volume
    return None


def whole_truth(root: Location, target: Target, name: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None] | None:
    """A class's labels in one crop, 0 where its mask says that nothing counts, and that mask; None without truth."""
    volume, mask = (open_truth(root, target, array) for array in (name, f"{name}_mask"))
    if volume is None:
        return None
    values = volume.read(target.grid.box)
    if is_instance(name):
        check_ids(values, volume.place)
    if mask is None:
        return values, None
    counts = mask.read(target.grid.box) > 0
    return np.where(counts, values, np.zeros((), values.dtype)), counts


def check_ids(values: NDArray[Any], place: str) -> NDArray[Any]:
    """The values, which name objects. Raises VolumeError for any that are not whole numbers from 0."""
    if values.dtype.kind not in "bui":
        raise VolumeError(f"{place}: has dtype {values.dtype}; ids are whole numbers")
    if values.dtype.kind == "i" and (lowest := values.min(initial=0)) < 0:
        raise VolumeError(f"{place}: has the id {lowest}; ids are not negative, write 0 where there is no object")
    return values


def _is_there(place: str) -> bool:
    if not is_url(place):
        return Path(plain(place)).is_dir()
    return any(exist(place, (".zarray", ".zgroup", "zarr.json")))


def misplaced(found: Grid, expected: Grid) -> str | None:
    """In what a grid differs from the manifest's."""
    if found.matches(expected):
        return None
    sides = (
        ("shape", found.shape, expected.shape),
        ("voxel_size", found.voxel_size_nm, expected.voxel_size_nm),
        ("translation", found.origin_nm, expected.origin_nm),
    )
    differing = [
        f"{key} {list(ours)} where the manifest has {list(theirs)}" for key, ours, theirs in sides if ours != theirs
    ]
    return f"has {' and '.join(differing)}"
