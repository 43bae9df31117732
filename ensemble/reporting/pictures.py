"""Pictures of an array where there is most of it: EM, outlines, probability, what decoding changed, disagreement.

Only a window around the busiest chunk is read: the chunk whose file is largest, which costs no reading to find.
"""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from ensemble.errors import EnsembleError
from ensemble.grid import Grid, Slices
from ensemble.mixing import Probability
from ensemble.plan import CropPlan, sources_in
from ensemble.recipe import Mix, Route
from ensemble.zarr2 import StoredArray

COLOURS = np.array(
    [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66]],
    np.uint8,
)
"""Okabe and Ito's, told apart by the colour-blind; an object keeps its own from picture to picture."""

REMOVED, ADDED = np.array([213, 94, 0], np.uint8), np.array([0, 114, 178], np.uint8)
PLAIN = np.array([255, 255, 255], np.uint8)
"""Of outlines beside what was removed and added."""

PLANES = 3
"""Slices along z in the slider."""

EDGES = ((60, 256), (150, 192), (10**9, 128))
"""Up to so many arrays a picture has this edge, in voxels: the page stays small whatever the manifest."""

Read = Callable[[Slices], np.ndarray]


def edge_for(arrays: int) -> int:
    """The edge of the pictures, in voxels of the target, where so many arrays are shown."""
    return next(edge for most, edge in EDGES if arrays <= most)


@dataclass(frozen=True)
class View:
    """One slice: where it lies, and its layers as data URLs; a layer that says nothing is not there."""

    axis: str
    position: int
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
    em: np.ndarray | None,
    plan: CropPlan | None,
    name: str,
    fields: Mapping[tuple[str, str], Any],
) -> list[View]:
    """Slices through the busiest planes of a window: some along z, one along y and one along x.

    ``labels`` and ``em`` are those of the window; with ``plan`` and ``fields`` also its probability.
    """
    found = []
    for axis, letter in enumerate("zyx"):
        filled = np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axis))
        best = int(filled.argmax())
        step = max(1, len(filled) // 8)
        wanted = [best + step * k for k in range(-(PLANES // 2), PLANES // 2 + 1)] if axis == 0 else [best]
        for at in dict.fromkeys(min(max(p, 0), len(filled) - 1) for p in wanted):
            plane = tuple(slice(at, at + 1) if a == axis else slice(None) for a in range(3))
            layers = {"mask": outlines(labels[plane].squeeze(axis))}
            if em is not None:
                layers["em"] = grey(em[plane].squeeze(axis))
            where = tuple(slice(box[a].start + at, box[a].start + at + 1) if a == axis else box[a] for a in range(3))
            if plan is not None:
                layers |= _of_probability(plan, name, fields, where, labels[plane], axis)
            found.append(View(letter, box[axis].start + at, layers))
    return found


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
    if not isinstance(route.source, Mix) or len(names) < 2:
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
    rgba = np.zeros((*labels.shape, 4), np.uint8)
    border = find_boundaries(labels, mode="inner", background=0)
    rgba[..., :3] = COLOURS[colour_of(labels.astype(np.int64))] if colour is None else colour
    rgba[..., 3] = np.where(border, 255, np.where(labels > 0, 48, 0))
    rgba[rgba[..., 3] == 0] = 0
    return _palette(rgba)


def changes(removed: np.ndarray, added: np.ndarray) -> str:
    """What was removed and added in a plane, the rest transparent, as a data URL."""
    rgba = np.zeros((*removed.shape, 4), np.uint8)
    rgba[removed] = (*REMOVED, 220)
    rgba[added] = (*ADDED, 220)
    return _palette(rgba)


def _palette(rgba: np.ndarray) -> str:
    return _encoded(Image.fromarray(rgba), "WEBP", lossless=True, method=4)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
