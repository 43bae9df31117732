"""The matching, against the solver arc by arc, and its limits."""

import numpy as np
import pytest
from ortools.graph.python import min_cost_flow
from scipy.sparse import csr_array

from ensemble.scoring.matching import MatchingLimits, match
from ensemble.scoring.objects import OverlapTable
from tests.support.brute_score import UNMATCHED


@pytest.mark.parametrize("seed", range(12))
def test_matching_is_the_solvers_own_even_among_equal_costs(seed):
    """Ties abound; huge objects whose IoU differs by less than the costs tell apart, too."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, (9, 12)) * (random.random((9, 12)) < 0.5)
    table = counts * random.choice([1, 10_000_019]) + (counts > 0) * random.integers(0, 3, (9, 12))
    table[0, 0] = 1
    table[4] = 0  # an id that does not occur takes part all the same
    assert match(OverlapTable(csr_array(table))).tolist() == _arc_by_arc(table)


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


def test_too_many_overlaps_leave_the_crop_out():
    limits = MatchingLimits(final_ratio=10, extra_ratio=50, decay=5, overlaps=3)
    assert limits.exceeded(OverlapTable(csr_array([[9, 0, 0], [0, 1, 1], [0, 1, 0]]))) is None
    assert "4 overlapping pairs" in limits.exceeded(OverlapTable(csr_array([[9, 0, 0], [0, 1, 1], [0, 1, 1]])))
