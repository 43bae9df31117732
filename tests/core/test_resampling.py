"""Arrays land where they lie in nm: against direct evaluation of functions of position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.grid import Grid
from ensemble.core.resampling import resample, resample_labels, support

VOXEL_SIZES = st.sampled_from([1.74, 2.0, 3.48, 4.0, 5.3, 8.0, 13.92, 16.0, 32.0])


@st.composite
def grid_pairs(draw: st.DrawFn) -> tuple[Grid, Grid]:
    """A source, and a target well inside it, each anisotropic and at any phase."""
    source_nm = tuple(draw(VOXEL_SIZES) for _ in range(3))
    target_nm = tuple(draw(VOXEL_SIZES) for _ in range(3))
    span = [8 * max(s, t) for s, t in zip(source_nm, target_nm, strict=True)]
    origin = tuple(draw(st.floats(-50, 50)) for _ in range(3))
    margin = [2 * (s + t) for s, t in zip(source_nm, target_nm, strict=True)]
    shape = tuple(int((length + 2 * m) / v) + 3 for length, m, v in zip(span, margin, source_nm, strict=True))
    phase = tuple(draw(st.floats(0, 1)) for _ in range(3))
    start = tuple(o + m + p * v for o, m, p, v in zip(origin, margin, phase, source_nm, strict=True))
    target = tuple(max(1, int(length / v)) for length, v in zip(span, target_nm, strict=True))
    return Grid(shape, source_nm, origin), Grid(target, target_nm, start)


def positions(grid: Grid) -> list[np.ndarray]:
    return np.meshgrid(*(grid.centres_nm(axis) for axis in range(3)), indexing="ij")


@given(grid_pairs())
def test_a_linear_function_of_position_is_reproduced_exactly(pair: tuple[Grid, Grid]) -> None:
    source, target = pair

    def f(grid: Grid) -> np.ndarray:
        z, y, x = positions(grid)
        return 0.003 * z - 0.002 * y + 0.001 * x

    assert np.allclose(resample(f(source), source, target), f(target), atol=2e-5)


@given(grid_pairs())
def test_a_wave_longer_than_both_voxels_lands_within_interpolation_error(pair: tuple[Grid, Grid]) -> None:
    source, target = pair
    waves = [16 * max(s, t) for s, t in zip(source.voxel_size_nm, target.voxel_size_nm, strict=True)]

    def f(grid: Grid) -> np.ndarray:
        return sum(np.sin(2 * np.pi * p / wave) for p, wave in zip(positions(grid), waves, strict=True)) / 3

    # |f''| (2 pi / wave)^2 / 8 for interpolating, as much again for averaging over up to a voxel
    assert np.abs(resample(f(source), source, target) - f(target)).max() < 0.05


@pytest.mark.parametrize(
    ("source_nm", "target_nm"),
    [((8, 8, 8), (2, 2, 2)), ((2, 2, 2), (32, 32, 32)), ((3.48, 4, 4), (1.74, 2, 2)), ((4, 4, 4), (8, 8, 8))],
)
def test_a_sphere_keeps_its_centre_and_volume_in_nm(source_nm: tuple, target_nm: tuple) -> None:
    radius, centre = 130.0, np.array([203.1, 197.7, 210.9])

    def sphere(grid: Grid) -> np.ndarray:
        z, y, x = (p - c for p, c in zip(positions(grid), centre, strict=True))
        edge = max(source_nm)
        return np.clip((radius - np.sqrt(z**2 + y**2 + x**2)) / edge + 0.5, 0, 1)

    source = Grid(tuple(int(420 / v) for v in source_nm), source_nm, (1.3, -2.1, 0.4))
    target = source.covering(target_nm)
    got = resample(sphere(source), source, target)
    weight = got / got.sum()
    measured = [float((weight * p).sum()) for p in positions(target)]
    assert np.allclose(measured, centre, atol=0.15)
    assert got.sum() * target.voxel_volume_nm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)


@given(grid_pairs())
def test_the_support_is_enough(pair: tuple[Grid, Grid]) -> None:
    source, target = pair
    values = np.random.default_rng(0).random(source.shape, dtype=np.float32)
    window = support(source, target)
    part = resample(values[window.slices], source.sub(window), target)
    assert np.allclose(part, resample(values, source, target), atol=1e-5)


@given(grid_pairs(), st.integers(0, 2))
def test_blocks_join_to_the_whole(pair: tuple[Grid, Grid], axis: int) -> None:
    source, target = pair
    values = np.random.default_rng(1).random(source.shape, dtype=np.float32)
    cut = target.shape[axis] // 2
    halves = []
    for start, stop in ((0, cut), (cut, target.shape[axis])):
        if start == stop:
            continue
        block = target.box.with_axis(axis, start, stop)
        window = support(source, target.sub(block))
        halves.append(resample(values[window.slices], source.sub(window), target.sub(block)))
    assert np.allclose(np.concatenate(halves, axis), resample(values, source, target), atol=1e-5)


def test_equal_grids_are_the_identity_and_twice_the_voxel_is_the_mean_of_eight() -> None:
    values = np.random.default_rng(2).random((6, 8, 10), dtype=np.float32)
    grid = Grid(values.shape, (4, 4, 4), (0, 0, 0))
    assert np.array_equal(resample(values, grid, grid), values)
    eight = values.reshape(3, 2, 4, 2, 5, 2).mean(axis=(1, 3, 5))
    assert np.allclose(resample(values, grid, grid.covering((8, 8, 8))), eight, atol=1e-6)


def test_beyond_the_outermost_centres_the_border_value_goes_on() -> None:
    source = Grid((3, 1, 1), (8, 8, 8), (0, 0, 0))
    target = Grid((5, 1, 1), (8, 8, 8), (-8, 0, 0))
    values = np.array([1, 2, 4], np.float32).reshape(3, 1, 1)
    assert resample(values, source, target).ravel().tolist() == [1, 1, 2, 4, 4]


def test_labels_take_the_nearest_voxel_and_keep_their_type() -> None:
    source = Grid((2, 1, 1), (8, 8, 8), (0, 0, 0))
    target = Grid((4, 1, 1), (4, 4, 4), (-2, 0, 0))
    labels = np.array([70000, 5], np.uint32).reshape(2, 1, 1)
    got = resample_labels(labels, source, target)
    assert got.ravel().tolist() == [70000, 70000, 5, 5]
    assert got.dtype == np.uint32
