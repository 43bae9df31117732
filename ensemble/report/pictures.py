"""Planes of labels, grey values and changes as images, each a data URL."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.segmentation import find_boundaries

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
"""Of outlines beside what was removed and added, or beside what is ``MARKED``."""

MARKED = np.array([240, 228, 66], np.uint8)


def colour_of(ids: Any) -> Any:
    """Which of the colours an object has: the same in every picture, and neighbours' ids far apart."""
    return ids * 2654435761 % 2**32 % len(COLOURS)


def grey(values: NDArray[Any]) -> str:
    """A plane of grey values as a data URL."""
    return _encoded(Image.fromarray(np.ascontiguousarray(values.astype(np.uint8))), "WEBP", quality=45, method=4)


def outlines(labels: NDArray[Any], colour: NDArray[Any] | None = None) -> str:
    """The borders of objects in their colours, or in one, the rest transparent, as a data URL."""
    colours = (
        COLOURS[colour_of(labels.astype(np.int64))] if colour is None else np.broadcast_to(colour, (*labels.shape, 3))
    )
    return drawn_lines(colours, find_boundaries(labels, mode="inner", background=0), labels > 0)


def drawn_lines(colours: NDArray[Any], lines: NDArray[Any], filled: NDArray[Any]) -> str:
    """Lines with a dark rim, and a tint where ``filled``; ``colours`` uint8 (y, x, 3); as a data URL."""
    rgba = np.zeros((*lines.shape, 4), np.uint8)
    rgba[..., :3] = colours
    rgba[..., 3] = np.where(lines, 255, np.where(filled, 48, 0))
    rgba[ndimage.binary_dilation(lines) & ~lines] = (0, 0, 0, _HALO)
    rgba[rgba[..., 3] == 0] = 0
    return _palette(rgba)


def marked(labels: NDArray[Any], chosen: NDArray[Any]) -> str:
    """Thin white borders of all objects, and those that are ``chosen`` (a mask) thick and tinted; a data URL."""
    thick = ndimage.binary_dilation(find_boundaries(chosen, mode="inner", background=0)) & chosen
    lines = thick | find_boundaries(labels, mode="inner", background=0)
    return drawn_lines(np.where(chosen[..., None], MARKED, PLAIN), lines, chosen)


def changed_voxels(removed: NDArray[Any], added: NDArray[Any]) -> str:
    """What was removed and added in a plane, the rest transparent, as a data URL."""
    colours = np.where(removed[..., None], REMOVED, ADDED)
    return drawn_lines(colours, removed | added, removed | added)


def _palette(rgba: NDArray[Any]) -> str:
    return _encoded(Image.fromarray(rgba), "WEBP", lossless=True, method=4)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
