"""The probability of a class on any block: mixed, stepped and filled."""

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.core.box_array import MemoryArray
from ensemble.core.manifest import Target
from ensemble.decode.mixing import Probability
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import Expression, MixedSource, NamedSource, OfClasses
from tests.support.known_crop import GRID, SHAPE, Given, cloud, route, step

BLOCK = Box((60, 3, 0), (68, 17, 26))
MEAN = MixedSource("mean", ((NamedSource("s"), 3.0), (NamedSource("t"), 1.0)))


def fields() -> dict[tuple[str, str], Given]:
    rng = np.random.default_rng(0)
    return {(name, source): cloud(rng) for name in ("mito", "nuc") for source in "st"}


def probability(source: Expression, known: dict, steps: tuple = ()) -> Probability:
    routes = {"mito": route(source, steps=steps), "nuc": route(NamedSource("t"))}
    return Probability(CropPlan(Target("1", "d", GRID, ("nuc", "mito")), routes, ("nuc", "mito"), ()), known)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (NamedSource("t"), lambda p: p["mito", "t"]),
        (MEAN, lambda p: (3 * p["mito", "s"] + p["mito", "t"]) / 4),
        (
            MixedSource("max", ((NamedSource("s"), 1.0), (MEAN, 1.0))),
            lambda p: np.maximum(p["mito", "s"], expected_mean(p)),
        ),
        (OfClasses("union", ("nuc",)), lambda p: p["nuc", "t"]),
    ],
)
def test_a_class_is_mixed_as_its_route_says_and_lies_within_its_bounds(source, expected) -> None:
    known = fields()
    p = probability(source, known)
    got = p.of("mito", BLOCK)
    assert np.allclose(got, expected({key: field.values for key, field in known.items()})[BLOCK.slices], atol=1e-6)
    low, high = p.bounds("mito", BLOCK)
    assert low <= got.min() and got.max() <= high
    assert np.array_equal(p.over(("mito",), BLOCK).of("mito", BLOCK), got)


def expected_mean(p: dict) -> np.ndarray:
    return (3 * p["mito", "s"] + p["mito", "t"]) / 4


def test_a_step_on_probabilities_sees_beyond_the_block() -> None:
    smooth = step("smooth", sigma_nm=8)
    known = fields()
    whole = smooth(known["mito", "s"].values, GRID.voxel_size_nm)
    assert np.allclose(
        probability(NamedSource("s"), known, (smooth,)).of("mito", BLOCK), whole[BLOCK.slices], atol=1e-6
    )


def test_a_filled_hole_is_raised_above_the_threshold_and_nothing_is_lowered() -> None:
    known = fields()
    holes = np.zeros(SHAPE, np.uint8)
    holes[62:64, 5:9, 5:9] = 1
    p = probability(NamedSource("s"), known)
    before = p.of("mito", BLOCK)
    p.fill("mito", MemoryArray(holes))
    after = p.of("mito", BLOCK)
    assert np.array_equal(after, np.where(holes[BLOCK.slices] > 0, np.maximum(before, np.float32(0.75)), before))
    assert p.bounds("mito", BLOCK)[1] >= after.max()
