"""Distances between bodies, against those of all pairs of voxels."""

import math

import numpy as np
import pytest

from ensemble.scoring import hausdorff
from ensemble.scoring.objects import box_of
from tests.support.brute_score import distance

WAYS = {
    "small boxes": {"_POINT_COST": 10**9},
    "large boxes": {"_POINT_COST": 10**9, "LARGE_VOXELS": 0},
    "a tree": {"_POINT_COST": 0, "_TARGET_COST": 0},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(8))
def test_distances_are_those_of_all_pairs_of_voxels(seed, way, monkeypatch):
    """Of ragged bodies, to the last bit, in whichever way they are found."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(hausdorff, name, value)
    random = np.random.default_rng(seed)
    voxel_size = [(4.0, 4.0, 4.0), (1.74, 2.0, 2.0), (3.3, 7.1, 19.7)][seed % 3]
    true, near, far = (_ragged(random, (14, 17, 12)) for _ in range(3))
    far &= ~near
    touching = [bool((true & near).any()), bool((true & far).any())]
    bodies = [_body(true * 3, 3), _body(near + far * 2, 1), _body(near + far * 2, 2)]
    got = hausdorff.hausdorff_nm(bodies[0], bodies[1:], touching, voxel_size, math.inf)
    assert got == distance(true, near | far, voxel_size)


def _body(labels: np.ndarray, id_: int) -> hausdorff.Body:
    where = tuple(slice(a.min(), a.max() + 1) for a in (labels == id_).nonzero())
    return hausdorff.Body(labels, id_, box_of(where), int((labels == id_).sum()))


def _ragged(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    centre, radius = [random.uniform(0, n) for n in shape], random.uniform(2, 6)
    far = sum((i - c) ** 2 for i, c in zip(np.indices(shape), centre, strict=True))
    mask = (far < radius**2) & (random.random(shape) < 0.9)
    mask[tuple(random.integers(0, n) for n in shape)] = True
    return mask
