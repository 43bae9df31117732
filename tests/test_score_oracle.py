"""The scorer against brute force on small random volumes, and its matching against the solver arc by arc."""

import math

import numpy as np
import pytest
from brute_score import UNMATCHED, distance, outcomes, parts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ortools.graph.python import min_cost_flow
from scipy.sparse import csr_array

from ensemble.scoring import evaluation as score
from ensemble.scoring import hausdorff
from ensemble.scoring.matching import match
from ensemble.scoring.objects import ObjectOverlaps, split_objects

VOXEL_SIZES = st.sampled_from([(4.0, 4.0, 4.0), (1.74, 2.0, 2.0), (13.92, 16.0, 16.0), (3.3, 7.1, 19.7)])
SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two volumes of sparse ids; the truth's need not be contiguous."""
    shape = draw(SHAPES)
    truth = draw(arrays(np.uint16, shape, elements=st.integers(0, 3), fill=st.just(0)))
    prediction = draw(arrays(np.uint8, shape, elements=st.integers(0, 2), fill=st.just(0)))
    return truth * draw(st.sampled_from([1, 2])), prediction


@given(pairs(), VOXEL_SIZES)
@settings(max_examples=400, deadline=None)
def test_a_crop_has_an_outcome_that_the_rules_allow(pair, voxel_size):
    allowed = outcomes(*pair, voxel_size)
    got = score.instance(*pair, voxel_size)
    if allowed is None:
        assert got["status"] == "too many objects"
        assert got["combined_score"] is None
        return
    assert any(_agrees(got, outcome) for outcome in allowed), (got, allowed)


def _agrees(got, outcome) -> bool:
    objects = 2 * outcome.tp + outcome.fp + outcome.fn
    f1 = 2 * outcome.tp / objects if objects else 1.0
    mean = sum(outcome.scores) / len(outcome.scores) if outcome.scores else 1.0
    counts = (got["tp"], got["fp"], got["fn"]) == (outcome.tp, outcome.fp, outcome.fn)
    expected = {"f1": f1, "normalized_hausdorff_distance": mean, "combined_score": math.sqrt(f1 * mean)}
    return counts and all(abs(got[key] - value) < 1e-12 for key, value in expected.items())


@given(arrays(np.uint8, SHAPES, elements=st.integers(0, 3)))
@settings(max_examples=200, deadline=None)
def test_objects_are_numbered_in_scan_order(prediction):
    objects, count = split_objects(prediction)
    expected, number = parts(prediction)
    assert count == number
    assert np.array_equal(objects, expected)


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
    return hausdorff.Body(labels, id_, hausdorff.box(where), int((labels == id_).sum()))


def _ragged(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    centre, radius = [random.uniform(0, n) for n in shape], random.uniform(2, 6)
    far = sum((i - c) ** 2 for i, c in zip(np.indices(shape), centre, strict=True))
    mask = (far < radius**2) & (random.random(shape) < 0.9)
    mask[tuple(random.integers(0, n) for n in shape)] = True
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_matching_is_the_solvers_own_even_among_equal_costs(seed):
    """Ties abound; huge objects whose IoU differs by less than the costs tell apart, too."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, (9, 12)) * (random.random((9, 12)) < 0.5)
    table = counts * random.choice([1, 10_000_019]) + (counts > 0) * random.integers(0, 3, (9, 12))
    table[0, 0] = 1
    table[4] = 0  # an id that does not occur takes part all the same
    assert match(ObjectOverlaps(csr_array(table))).tolist() == _arc_by_arc(table)


def _arc_by_arc(table: np.ndarray) -> list[int]:
    true, predicted = (n - 1 for n in table.shape)
    sink = 1 + true + predicted
    solver = min_cost_flow.SimpleMinCostFlow()
    for i in range(true):
        solver.add_arc_with_capacity_and_unit_cost(0, 1 + i, 1, 0)
    for i in range(true):
        solver.add_arc_with_capacity_and_unit_cost(1 + i, sink, 1, UNMATCHED)
    for i, j in np.argwhere(table[1:, 1:]).tolist():
        common = int(table[i + 1, j + 1])
        union = int(table[i + 1].sum()) + int(table[:, j + 1].sum()) - common
        price = int((1.0 - float(np.float32(common / union))) * 1_000_000)
        solver.add_arc_with_capacity_and_unit_cost(1 + i, 1 + true + j, 1, price)
    for j in range(predicted):
        solver.add_arc_with_capacity_and_unit_cost(1 + true + j, sink, 1, 0)
    solver.set_node_supply(0, true)
    solver.set_node_supply(sink, -true)
    assert solver.solve() == solver.OPTIMAL
    matched = [0] * (predicted + 1)
    for arc in range(2 * true, solver.num_arcs() - predicted):
        if solver.flow(arc):
            matched[solver.head(arc) - true] = solver.tail(arc)
    return matched
