"""Slices of an array where there is most of it: EM, outlines, probability, what decoding changed, disagreement.

Only a window around the busiest chunk is read: the chunk whose file is largest, which costs no reading to find.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, zyx
from ensemble.report.build_probabilities import ClassProbability
from ensemble.report.pictures import changed_voxels, grey, outlines
from ensemble.storage import Volume
from ensemble.submission import StoredArray
from ensemble.support import EnsembleError

PLANES = 3
"""Slices along z in the slider, and along y and x too where arrays are few."""

SIZES = ((60, 256, PLANES), (150, 192, PLANES), (10**9, 128, 1))
"""Up to so many arrays a picture has this edge, in voxels, and so many slices along y and x: the page stays small."""


def size_for(arrays: int) -> tuple[int, int]:
    """The edge of the pictures, in voxels of the target, where so many arrays are shown, and slices along y and x."""
    return next((edge, across) for most, edge, across in SIZES if arrays <= most)


@dataclass(frozen=True)
class View:
    """One slice: where it lies, and its layers as data URLs; a layer that says nothing is not there.

    ``where`` is the same for people; ``busiest`` is the slice of its axis that holds most.
    """

    axis: str
    position: int
    where: str
    busiest: bool
    layers: Mapping[str, str]


def window(array: StoredArray, edge: int) -> Box | None:
    """The box around the array's busiest chunk; None where nothing was written."""
    if not array.present:
        return None
    sizes = array.members.sizes
    busiest = max(array.present, key=lambda index: (sizes[array.present[index]], index))
    return box_around(centre_of(array.chunk_box(busiest)), edge, array.shape_zyx)


def centre_of(box: Box) -> VoxelsZYX:
    """Its middle voxel."""
    return zyx((a + b) // 2 for a, b in zip(box.start, box.stop, strict=True))


def box_around(centre: VoxelsZYX, edge: int, shape: VoxelsZYX) -> Box:
    """A cube around a voxel, moved inside of ``shape``; all of an axis that is shorter."""
    start = zyx(max(0, min(at - edge // 2, n - edge)) for at, n in zip(centre, shape, strict=True))
    return Box.at(start, (edge, edge, edge)).intersect(Box.of_shape(shape))


def plane_at(box: Box, at: int, axis: int = 0) -> Box:
    """The plane of a box that is ``at`` voxels from where it begins."""
    return box.with_axis(axis, box.start[axis] + at, box.start[axis] + at + 1)


def views_of(
    labels: NDArray[Any],
    box: Box,
    grid: Grid,
    em: NDArray[Any] | None,
    probability: ClassProbability | None,
    across: int = PLANES,
) -> list[View]:
    """Slices of a window through its busiest plane along each axis, and beside it.

    ``labels`` and ``em`` are those of the window; with ``probability`` that too: where there are no labels, the
    planes are those where it is highest. There are ``across`` slices along y and along x.
    """
    shown: NDArray[Any] = labels > 0
    if probability is not None and not shown.any():
        shown = probability.unfilled(box)
    views = []
    for axis, letter in enumerate("zyx"):
        others = tuple(a for a in range(3) if a != axis)
        most = shown.sum(axis=others) if shown.dtype == bool else shown.max(axis=others)
        busiest = int(most.argmax())
        for at in _planes(busiest, labels.shape[axis], across if axis else PLANES):
            plane = plane_at(box, at, axis)
            cut = plane.relative_to(box).slices
            layers = {"mask": outlines(labels[cut].squeeze(axis))}
            if em is not None:
                layers["em"] = grey(em[cut].squeeze(axis))
            if probability is not None:
                layers |= _of_probability(probability, plane, labels[cut], axis)
            views.append(View(letter, plane.start[axis], _in_words(plane, axis, grid), at == busiest, layers))
    return views


def _planes(busiest: int, size: int, count: int) -> list[int]:
    """So many planes inside of 0 ... size, an eighth of it apart, one of them the busiest."""
    count = min(count, size)
    step = max(1, min(size // 8, (size - 1) // max(1, count - 1)))
    most_before = busiest // step
    least_before = count - 1 - (size - 1 - busiest) // step
    before = max(min(count // 2, most_before), least_before)
    return [busiest + step * (k - before) for k in range(count)]


def _in_words(plane: Box, axis: int, grid: Grid) -> str:
    """Such as "z 61 of 228, y 100–228, x 0–128 (voxels of 2 nm)"."""
    parts = [
        f"{letter} {start} of {n}" if a == axis else f"{letter} {start}–{stop}"
        for a, (letter, start, stop, n) in enumerate(zip("zyx", plane.start, plane.stop, grid.shape, strict=True))
    ]
    words = ", ".join([parts[axis], *(part for a, part in enumerate(parts) if a != axis)])
    return f"{words} (voxels of {' × '.join(dict.fromkeys(f'{nm:g}' for nm in grid.voxel_size_nm))} nm)"


def _of_probability(probability: ClassProbability, plane: Box, labels: NDArray[Any], axis: int) -> dict[str, str]:
    """The layers of a plane that tell of its probability."""
    p = probability.unfilled(plane)
    layers = {"probability": grey(np.rint(255 * p).astype(np.uint8).squeeze(axis))}
    alone, mask = p > probability.route.threshold, labels > 0
    if (alone != mask).any():
        layers["changed"] = changed_voxels((alone & ~mask).squeeze(axis), (mask & ~alone).squeeze(axis))
    spread = probability.spread(plane)
    if spread is not None:
        layers["spread"] = grey(np.rint(255 * spread).astype(np.uint8).squeeze(axis))
    return layers


def em_window(levels: Sequence[Volume], grid: Grid, box: Box) -> NDArray[Any] | None:
    """The EM on a box of the target's grid, each voxel that of the nearest voxel of the level that suits best.

    Levels of which nothing was written, or fetched, under the box are passed over; None where there is no other.
    """
    target = grid.sub(box)
    for level in sorted(levels, key=lambda v: abs(np.log(np.prod(v.grid.voxel_size_nm) / np.prod(grid.voxel_size_nm)))):
        index = [_nearest_voxels(level.grid, target, axis) for axis in range(3)]
        read = Box(zyx(i.min() for i in index), zyx(i.max() + 1 for i in index))
        try:
            if level.present(read.to_chunks(level.chunks)).any():
                values = level.read(read)
                return np.asarray(values[np.ix_(*(i - at for i, at in zip(index, read.start, strict=True)))])
        except EnsembleError:
            return None
    return None


def _nearest_voxels(level: Grid, target: Grid, axis: int) -> NDArray[np.int64]:
    at = np.rint(level.position_voxels(axis, target.centres_nm(axis)))
    return np.asarray(np.clip(at, 0, level.shape[axis] - 1), np.int64)
