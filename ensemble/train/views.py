"""How a patch is shown: what the spec's augmentations come to for one patch, drawn but not yet done."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from ensemble.core import FIT_TOLERANCE
from ensemble.train.spec import TrainingSpec


class Exposure(NamedTuple):
    """Contrast about the patch's mean; brightness and noise in standard deviations of the patch."""

    contrast: float
    shift: float
    noise: float
    noise_seed: int


class View(NamedTuple):
    """Mirror along ``flips``, then swap each pair of ``swaps``, then turn by right angles in a plane, then expose.

    Axes are counted from the last.
    """

    flips: tuple[int, ...] = ()
    swaps: tuple[tuple[int, int], ...] = ()
    plane: tuple[int, int] = (-2, -1)
    turns: int = 0
    exposure: Exposure | None = None


PLAIN = View()


def draw_view(spec: TrainingSpec, rng: np.random.Generator) -> View:
    """Another view of the same kind of tissue, by the steps that the spec lists."""
    view = PLAIN
    planes = _square_planes(spec)
    if "mirror" in spec.augment:
        view = view._replace(flips=tuple(axis for axis in (-3, -2, -1) if rng.random() < 0.5))
    if "transpose" in spec.augment:
        view = view._replace(swaps=tuple(plane for plane in planes if rng.random() < 0.5))
    if "rotate" in spec.augment and planes:
        view = view._replace(plane=planes[rng.integers(len(planes))], turns=int(rng.integers(4)))
    if "intensity" in spec.augment:
        contrast, shift, noise = rng.uniform(0.75, 1.3), rng.uniform(-0.3, 0.3), rng.uniform(0, 0.15)
        view = view._replace(exposure=Exposure(contrast, shift, noise, int(rng.integers(2**63))))
    return view


def _square_planes(spec: TrainingSpec) -> list[tuple[int, int]]:
    """Pairs of axes, counted from the last, along which voxels and patch are equally long."""
    planes = []
    for a, b in combinations(range(3), 2):
        ratio = spec.voxel_size_nm[a] / spec.voxel_size_nm[b]
        if abs(ratio - 1) <= FIT_TOLERANCE and spec.patch_voxels[a] == spec.patch_voxels[b]:
            planes.append((a - 3, b - 3))
    return planes
