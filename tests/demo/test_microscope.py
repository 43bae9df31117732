"""Synthetic EM: stored as the challenge stores it, and dark where the truth has membranes."""

import json
from itertools import pairwise

import numpy as np

from ensemble.core.grid import Grid
from ensemble.demo.microscope import Microscope, render
from tests.support.small_phantom import em_path, levels_of, small_sample


def test_each_level_is_the_mean_of_eight_voxels_at_their_middle(small):
    levels = levels_of(em_path(small))
    assert [values.shape for values, _, _ in levels] == [(64, 75, 96), (32, 37, 48), (16, 18, 24)]
    assert levels[0][2].tolist() == [100.25, 200.0, 300.5]
    assert levels[1][2].tolist() == [104.25, 204.0, 304.5]
    assert levels[2][2].tolist() == [112.25, 212.0, 312.5]
    for (fine, fine_nm, fine_at), (coarse, coarse_nm, coarse_at) in pairwise(levels):
        for index in [(0, 0, 0), (5, 7, 11), (15, 17, 23)]:
            start = [2 * i for i in index]
            children = fine[tuple(slice(a, a + 2) for a in start)]
            assert abs(children.mean() - coarse[index]) <= 0.5
            middle = fine_at + (np.array(start) + 0.5) * fine_nm
            assert np.allclose(coarse_at + np.array(index) * coarse_nm, middle)


def test_the_em_is_stored_as_the_challenge_stores_it(small):
    described = json.loads((em_path(small) / "s0" / ".zarray").read_text())
    assert described["zarr_format"] == 2
    assert described["dtype"] == "|u1"
    assert described["chunks"] == [64, 64, 64]
    assert described["dimension_separator"] == "/"
    assert described["compressor"]["id"] == "zstd"
    assert described["fill_value"] == 0
    (image,) = json.loads((em_path(small) / ".zattrs").read_text())["multiscales"]
    assert image["version"] == "0.4"
    assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert levels_of(em_path(small))[0][0].min() > 0


def test_the_em_shows_its_truth_where_the_truth_says_it_is(small):
    """Membranes are dark: their mean grey is lowest at no shift, so EM and labels share their frame."""
    em = levels_of(em_path(small))[0][0][4:60, 5:70, 0:48].astype(float)
    labels = em_path(small).parents[1] / "labels" / "groundtruth" / "crop603"
    ((membrane, _, at),) = levels_of(labels / "pm")
    assert at.tolist() == [100.25 + 32, 200.0 + 40, 300.5]
    inner = (slice(2, -2),) * 3
    grey = {}
    for axis in range(3):
        for shift in (-2, -1, 0, 1, 2):
            grey[axis, shift] = em[inner][np.roll(membrane, shift, axis)[inner] > 0].mean()
        assert min((-2, -1, 0, 1, 2), key=lambda shift, axis=axis: grey[axis, shift]) == 0
    ((outside, _, _),) = levels_of(labels / "ecs")
    assert em[outside > 0].mean() - em[membrane > 0].mean() > 50


def test_em_is_the_same_for_the_same_key_and_contrast_is_the_instruments():
    painted = small_sample().scene((3, 0)).on(Grid((20, 24, 30), (8.0, 8.0, 8.0), (204.25, 304.0, 304.5)))
    plain = render(painted, (1, 2), Microscope())
    assert (plain.dtype, plain.shape, plain.min() >= 1) == (np.uint8, (20, 24, 30), True)
    assert np.array_equal(render(painted, (1, 2), Microscope()), plain)
    assert not np.array_equal(render(painted, (1, 3), Microscope()), plain)
    flat = render(painted, (1, 2), Microscope(gain=0.5, offset=60.0)).astype(float)
    assert np.abs(flat - (0.5 * plain + 60)).max() <= 1
