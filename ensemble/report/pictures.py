"""Pictures of an array where there is most of it: EM, outlines, probability, what decoding changed, disagreement.

Only a window around the busiest chunk is read: the chunk whose file is largest, which costs no reading to find.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.segmentation import find_boundaries

from ensemble.core.box import Slices
from ensemble.core.grid import Grid
from ensemble.decode.mixing import Probability
from ensemble.plan.plan import CropPlan, sources_in
from ensemble.plan.recipe import MixedSource, Route
from ensemble.submission.stored_array import StoredArray
from ensemble.support.errors import EnsembleError

COLOURS = np.array(
    [[255, 110, 60], [230, 159, 0], [0, 200, 140], [255, 160, 205], [255, 255, 255], [86, 180, 233], [240, 228, 66]],
    np.uint8,
)
"""After Okabe and Ito, told apart by the colour-blind, bright on grey; an object keeps its own in all pictures."""

REMOVED, ADDED = np.array([170, 50, 0], np.uint8), np.array([120, 200, 255], np.uint8)
"""A dark and a bright one, so that they differ without colour too."""

_HALO = 150
"""Opacity of the dark rim around lines, without which bright ones vanish on bright EM."""

PLAIN = np.array([255, 255, 255], np.uint8)
"""Of outlines beside what was removed and added, or is ``MARKED``."""

MARKED = np.array([240, 228, 66], np.uint8)

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


def window(array: StoredArray, edge: int) -> Slices | None:
    """The box around the array's busiest chunk; None where nothing was written."""
    if not array.present:
        return None
    sizes = array.members.sizes
    return around(array, max(array.present, key=lambda index: (sizes[array.present[index]], index)), edge)


def around(array: StoredArray, chunk: tuple[int, ...], edge: int) -> Slices:
    """The box of an edge around a chunk, inside the array."""
    box = []
    for index, size, n in zip(chunk, array.chunks, array.shape, strict=True):
        centre = min(index * size + size // 2, (index * size + n) // 2 if (index + 1) * size > n else n)
        box.append(span(centre, edge, n))
    return tuple(box)


def span(centre: int, edge: int, size: int) -> slice:
    """An edge around a centre, moved inside of 0 ... size; all of it where it is shorter."""
    start = max(0, min(centre - edge // 2, size - edge))
    return slice(start, min(start + edge, size))


def views(
    labels: np.ndarray,
    box: Slices,
    grid: Grid,
    em: np.ndarray | None,
    plan: CropPlan | None,
    name: str,
    fields: Mapping[tuple[str, str], Any],
    across: int = PLANES,
) -> list[View]:
    """Slices of a window through its busiest plane along each axis, and beside it.

    ``labels`` and ``em`` are those of the window; with ``plan`` and ``fields`` also its probability: where there are
    no labels, the planes are those where it is highest. There are ``across`` slices along y and along x.
    """
    shown = labels > 0
    if plan is not None and not shown.any():
        shown = Probability(plan, fields).unfilled(name, box)
    found = []
    for axis, letter in enumerate("zyx"):
        others = tuple(a for a in range(3) if a != axis)
        most = shown.sum(axis=others) if shown.dtype == bool else shown.max(axis=others)
        busiest = int(most.argmax())
        for at in _planes(busiest, labels.shape[axis], across if axis else PLANES):
            plane = tuple(slice(at, at + 1) if a == axis else slice(None) for a in range(3))
            layers = {"mask": outlines(labels[plane].squeeze(axis))}
            if em is not None:
                layers["em"] = grey(em[plane].squeeze(axis))
            where = tuple(slice(box[a].start + at, box[a].start + at + 1) if a == axis else box[a] for a in range(3))
            if plan is not None:
                layers |= _of_probability(plan, name, fields, where, labels[plane], axis)
            found.append(View(letter, where[axis].start, _in_words(where, axis, grid), at == busiest, layers))
    return found


def _planes(busiest: int, size: int, count: int) -> list[int]:
    """So many planes inside of 0 ... size, an eighth of it apart, one of them the busiest."""
    count = min(count, size)
    step = max(1, min(size // 8, (size - 1) // max(1, count - 1)))
    most_before = busiest // step
    least_before = count - 1 - (size - 1 - busiest) // step
    before = max(min(count // 2, most_before), least_before)
    return [busiest + step * (k - before) for k in range(count)]


def _in_words(where: Slices, axis: int, grid: Grid) -> str:
    """Such as "z 61 of 228, y 100–228, x 0–128 (voxels of 2 nm)"."""
    parts = [
        f"{letter} {s.start} of {n}" if a == axis else f"{letter} {s.start}–{s.stop}"
        for a, (letter, s, n) in enumerate(zip("zyx", where, grid.shape, strict=True))
    ]
    said = ", ".join([parts[axis], *(part for a, part in enumerate(parts) if a != axis)])
    return f"{said} (voxels of {' × '.join(dict.fromkeys(f'{nm:g}' for nm in grid.voxel_size_nm))} nm)"


def colour_of(ids: Any) -> Any:
    """Which of the colours an object has: the same in every picture, and neighbours' ids far apart."""
    return ids * 2654435761 % 2**32 % len(COLOURS)


def _of_probability(
    plan: CropPlan,
    name: str,
    fields: Mapping[tuple[str, str], Any],
    where: Slices,
    labels: np.ndarray,
    axis: int,
) -> dict[str, str]:
    route = plan.routes[name]
    p = Probability(plan, fields).unfilled(name, where)
    layers = {"probability": grey(np.rint(255 * p).astype(np.uint8).squeeze(axis))}
    alone, mask = p > route.threshold, labels > 0
    if (alone != mask).any():
        layers["changed"] = changes((alone & ~mask).squeeze(axis), (mask & ~alone).squeeze(axis))
    spread = _spread(plan, name, route, fields, where)
    if spread is not None:
        layers["spread"] = grey(np.rint(255 * spread).astype(np.uint8).squeeze(axis))
    return layers


def _spread(
    plan: CropPlan, name: str, route: Route, fields: Mapping[tuple[str, str], Any], where: Slices
) -> np.ndarray | None:
    """Highest minus lowest probability among the members of a mix; None where there is one source."""
    names = sources_in(route.source)
    if not isinstance(route.source, MixedSource) or len(names) < 2:
        return None
    block = plan.target.grid.sub(where)
    each = [fields[name, source].probability(block, route.resampling) for source in names if (name, source) in fields]
    return np.max(each, axis=0) - np.min(each, axis=0) if len(each) > 1 else None


def em_window(levels: Any, grid: Grid, box: Slices) -> np.ndarray | None:
    """The EM on a box of the target's grid, each voxel that of the nearest voxel of the level that suits; or None."""
    level = min(levels, key=lambda one: abs(np.log(np.prod(one.grid.voxel_size_nm) / np.prod(grid.voxel_size_nm))))
    target = grid.sub(box)
    index = [
        np.clip(np.rint(level.grid.position_voxels(a, target.centres_nm(a))).astype(int), 0, level.grid.shape[a] - 1)
        for a in range(3)
    ]
    block = tuple(slice(int(i.min()), int(i.max()) + 1) for i in index)
    try:
        values = level.read(block)
    except EnsembleError:
        return None
    return values[np.ix_(*(i - s.start for i, s in zip(index, block, strict=True)))]


def grey(values: np.ndarray) -> str:
    """A plane of grey values as a data URL."""
    return _encoded(Image.fromarray(np.ascontiguousarray(values.astype(np.uint8))), "WEBP", quality=45, method=4)


def outlines(labels: np.ndarray, colour: np.ndarray | None = None) -> str:
    """The borders of objects in their colours, or in one, the rest transparent, as a data URL."""
    colours = (
        COLOURS[colour_of(labels.astype(np.int64))] if colour is None else np.broadcast_to(colour, (*labels.shape, 3))
    )
    return drawn(colours, find_boundaries(labels, mode="inner", background=0), labels > 0)


def drawn(colours: np.ndarray, lines: np.ndarray, filled: np.ndarray) -> str:
    """Lines with a dark rim, and a tint where ``filled``; ``colours`` uint8 (y, x, 3); as a data URL."""
    rgba = np.zeros((*lines.shape, 4), np.uint8)
    rgba[..., :3] = colours
    rgba[..., 3] = np.where(lines, 255, np.where(filled, 48, 0))
    rgba[ndimage.binary_dilation(lines) & ~lines] = (0, 0, 0, _HALO)
    rgba[rgba[..., 3] == 0] = 0
    return _palette(rgba)


def marked(labels: np.ndarray, chosen: np.ndarray) -> str:
    """Thin white borders of all objects, and those that are ``chosen`` (a mask) thick and tinted; a data URL."""
    thick = ndimage.binary_dilation(find_boundaries(chosen, mode="inner", background=0)) & chosen
    lines = thick | find_boundaries(labels, mode="inner", background=0)
    return drawn(np.where(chosen[..., None], MARKED, PLAIN), lines, chosen)


def changes(removed: np.ndarray, added: np.ndarray) -> str:
    """What was removed and added in a plane, the rest transparent, as a data URL."""
    colours = np.where(removed[..., None], REMOVED, ADDED)
    return drawn(colours, removed | added, removed | added)


def _palette(rgba: np.ndarray) -> str:
    return _encoded(Image.fromarray(rgba), "WEBP", lossless=True, method=4)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
