"""The README's picture: for each crop of the demo a slice of EM, of the truth and of the submission.

``python -m benchmarks.demo_picture build/demo docs/demo.png`` after ``make demo``.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from ensemble.core import Grid, Target, load_manifest, resample, support
from ensemble.storage import open_em, open_volume
from ensemble.submission import Submission

# Okabe and Ito's colours, told apart by the colour-blind; later classes are drawn over earlier ones
COLOURS = {
    "ecs": "#FFFFFF",
    "cell": "#56B4E9",
    "er": "#F0E442",
    "nuc": "#0072B2",
    "mito": "#D55E00",
    "mito_mem": "#A04000",
    "ld": "#E69F00",
    "ves": "#009E73",
    "pm": "#CC79A7",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    mpl.use("Agg")
    targets = load_manifest(arguments.demo / "manifest.csv")
    figure, axes = pyplot.subplots(len(targets), 3, figsize=(9, 3 * len(targets)), dpi=100, layout="constrained")
    with Submission.open(arguments.demo / "submission.zip") as submission:
        for row, target in zip(axes, targets, strict=True):
            _draw(row, target, arguments.demo, submission)
    figure.savefig(arguments.picture)


def _draw(row: np.ndarray, target: Target, demo: Path, submission: Submission) -> None:
    z = target.grid.shape[0] // 2
    plane = target.grid.box.with_axis(0, z, z + 1)
    em = _em(demo, target, target.grid.sub(plane))
    truth = {
        name: open_volume(demo / "truth.zarr" / target.group / name).read(plane)[0]
        for name in COLOURS
        if name in target.classes
    }
    submitted = {name: submission.read(target.group, name, plane)[0] for name in truth}
    size = "×".join(f"{v:g}" for v in target.grid.voxel_size_nm)
    for axis, title, labels in zip(
        row, (f"crop {target.crop}, {size} nm", "truth", "submission"), (None, truth, submitted), strict=True
    ):
        axis.imshow(em if labels is None else _overlay(em, labels), cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()


def _em(demo: Path, target: Target, plane: Grid) -> np.ndarray:
    volume = open_em(demo / "data", target.dataset).levels[0]
    window = support(volume.grid, plane)
    return np.asarray(resample(volume.read(window), volume.grid.sub(window), plane)[0])


def _overlay(em: np.ndarray, labels: dict[str, np.ndarray]) -> np.ndarray:
    picture: np.ndarray = np.repeat(em[..., None] / 255, 3, axis=2)
    for name, colour in COLOURS.items():
        if name in labels:
            mask = labels[name] > 0
            picture[mask] = 0.45 * em[mask, None] / 255 + 0.55 * np.array(to_rgb(colour))
    return np.asarray(np.clip(picture, 0, 1))


if __name__ == "__main__":
    main()
