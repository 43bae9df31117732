"""Shapes of the toy tissue, by their formulas."""

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.demo.shapes import ATOM, LAYERS, Ripples, capsule_depth, directions, window_between


def test_a_field_on_a_lattice_is_the_field_at_its_points():
    ripples = Ripples.draw(np.random.default_rng(0), 8, (50, 200), rms=3.0)
    axes = (np.arange(0, 90, 9.0), np.arange(5, 60, 5.0), np.arange(-40, 40, 8.0))
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    expected = sum(
        a * np.sin(k @ points + p) for a, k, p in zip(ripples.amplitudes, ripples.waves, ripples.phases, strict=True)
    )
    assert np.allclose(ripples.at(points), expected)
    assert np.allclose(ripples.on(axes).ravel(), expected, atol=1e-3)
    assert np.abs(expected).max() <= ripples.bound
    far = np.random.default_rng(1).uniform(-1e5, 1e5, (3, 20_000))
    assert np.sqrt((ripples.at(far) ** 2).mean()) == pytest.approx(3.0, rel=0.05)


def test_directions_are_of_length_one_and_point_everywhere():
    vectors = directions(np.random.default_rng(0), 5000)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.abs(vectors.mean(axis=0)).max() < 0.05


def test_a_capsule_is_as_deep_as_the_nearest_point_of_its_segment_says():
    segment = np.array([[0.0, 0, 0], [0, 0, 10]])
    places = np.array([[0, 0, 5], [0, 3, 5], [0, 0, -2], [0, 3, 14], [4, 0, 0]], np.float32).T
    assert capsule_depth(places, segment, np.float32(6)).tolist() == pytest.approx([6, 3, 4, 1, 2])
    assert capsule_depth(places, segment[:1].repeat(2, 0), np.float32(6))[0] == pytest.approx(1)  # a sphere


def test_a_window_holds_the_points_between_two_corners():
    axes = (np.arange(0.0, 100, 10),) * 3
    assert window_between(axes, np.array([5, 0, 95]), np.array([31, 10.5, 200])) is None
    assert window_between(axes, np.array([5, 0, 85]), np.array([31, 10.5, 200])) == Box((1, 0, 9), (4, 2, 10))


def test_a_membrane_lies_outside_what_it_encloses():
    assert [LAYERS["mito"][nm] for nm in (0, 19, 20, 300)] == [ATOM["mito_mem"]] * 2 + [ATOM["mito_lum"]] * 2
