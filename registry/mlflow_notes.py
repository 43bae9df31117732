"""What people read in MLflow's pages of a model version and of a run: Markdown, with links and a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from registry.card import Card

PICTURE = "picture.png"
_MOST_SHOWN, _EDGE_PIXELS, _IN_A_ROW = 7, 160, 4
_GAP_PIXELS, _GAP_GREY = 4, 160


def version_link(name: str, version: int) -> str:
    """Leads from a run's page to that of a model version."""
    return f"[{name} version {version}](#/models/{quote(name, safe='')}/versions/{version})"


def build_note(models: Iterable[tuple[str, int]]) -> str:
    """Of a build, the model versions that it was made with."""
    links = sorted({version_link(name, version) for name, version in models})
    return "\n".join(["Made with", "", *(f"- {link}" for link in links)]) if links else "Made of what was stored."


def version_note(card: Card, run_id: str, folder: str, pictured: Sequence[str]) -> str:
    """Of a model version what it predicts, its scores, and the picture of some classes in a folder of its run's."""
    lines = [
        f"{card.architecture} at {' × '.join(f'{v:g}' for v in card.voxel_size_nm)} nm (z, y, x), patches of "
        f"{' × '.join(map(str, card.patch_voxels))} voxels: {', '.join(name for name in card.classes if name)}."
    ]
    if pictured:
        place = f"get-artifact?path={quote(f'{folder}/{PICTURE}', safe='')}&run_uuid={quote(run_id, safe='')}"
        lines += [f"![EM, and the answer]({place})", f"EM of its validation, and its answer of {', '.join(pictured)}."]
    if card.validation:
        rows = "".join(f"\n| {name} | {score:.4f} |" for name, score in sorted(card.validation.items()))
        lines.append(f"| class | validation |\n|---|---|{rows}")
    if card.notes:
        lines.append("".join(rf"\{c}" if c in r"\`*_[]<>#|!" else c for c in card.notes))
    return "\n\n".join(lines)


def write_picture(card: Card, grey: NDArray[Any], probabilities: NDArray[np.float32], folder: Path) -> tuple[str, ...]:
    """The middle plane of EM (z, y, x) and of the answers (class, z, y, x) side by side, as a PNG.

    Returns the classes that are in it: those of which there is most, in the card's order.
    """
    middle = grey.shape[0] // 2
    named = [index for index, name in enumerate(card.classes) if name is not None]
    most = sorted(named, key=lambda index: -float(probabilities[index, middle].sum()))[:_MOST_SHOWN]
    shown = sorted(most)
    low, high = np.percentile(grey, (1, 99))
    light = (grey[middle].astype(np.float32) - low) / max(float(high - low), 1e-6)
    planes = [light, *probabilities[shown, middle]]
    times = max(1, _EDGE_PIXELS // max(grey.shape[1:]))
    large = [np.kron(np.clip(255 * plane, 0, 255).round(), np.ones((times, times))) for plane in planes]
    framed = [np.pad(plane, (0, _GAP_PIXELS), constant_values=_GAP_GREY) for plane in large]
    framed += [np.full_like(framed[0], 255)] * (-len(framed) % _IN_A_ROW)
    rows = [np.concatenate(framed[at : at + _IN_A_ROW], axis=1) for at in range(0, len(framed), _IN_A_ROW)]
    Image.fromarray(np.concatenate(rows).astype(np.uint8)).save(folder / PICTURE)
    return tuple(card.classes[index] or "" for index in shown)
