"""A tuning of three classes whose best routes are known."""

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from ensemble.cli import main
from ensemble.core.grid import Grid

GRID = Grid((32, 48, 160), (8, 8, 8), (4, 4, 4))
CLASSES = ("mito", "nuc", "er")
RECIPE = """\
name: mine
sources:
  a: {predictions: "{root}/a/{crop}/{class}"}
  b: {predictions: "{root}/b/{crop}/{class}"}
defaults: {source: a, threshold: 0.5}
consistency: none
"""


TUNE = ["tune", "mine.yaml", "--manifest", "manifest.csv", "--truth", "truth.zarr", "--out", "tuned.yaml"]


def balls(seed: int, radius: float, count: int) -> np.ndarray:
    """Labels of balls, apart from each other, all over the crop."""
    chance, labels = np.random.default_rng(seed), np.zeros(GRID.shape, np.uint16)
    z, y, x = np.indices(GRID.shape, sparse=True)
    for _ in range(10 * count):
        centre = [chance.uniform(radius, n - radius) for n in GRID.shape]
        ball = sum((i - c) ** 2 for i, c in zip((z, y, x), centre, strict=True)) <= (radius + 2) ** 2
        if labels.max() < count and not labels[ball].any():
            inner = sum((i - c) ** 2 for i, c in zip((z, y, x), centre, strict=True)) <= radius**2
            labels[inner] = labels.max() + 1
    return labels


def predicted(truth: np.ndarray, seed: int, noise: float, offset: float = 0.0) -> np.ndarray:
    """The probability of a network that is sure to ``noise``, its logits off by ``offset``."""
    logit = np.where(truth > 0, 4.0, -4.0) + offset
    blurred = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(truth.shape), 1.0)
    return (1 / (1 + np.exp(-(logit + noise * blurred / blurred.std())))).astype(np.float32)


def tuned(*options: str) -> dict:
    assert main([*TUNE, "--trials", "8", *options]) == 0
    return json.loads(Path("tuned.json").read_text())
