"""Which predicted object stands for which true one, by minimum cost flow.

The solver is OR-Tools' own and its arcs are in the order of the official scorer, because among matchings of
equal cost the answer is whatever that solver finds first.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.scoring.objects import OverlapTable

_COST_OF_NO_OVERLAP = 1_000_000
_COST_OF_NO_MATCH = _COST_OF_NO_OVERLAP + 1


@dataclass(frozen=True)
class MatchingLimits:
    """What is too much to be matched: the crop is then left out of its class.

    Of n true objects there may be ``final_ratio + extra_ratio * exp(-n / decay)`` predicted ones each.
    """

    final_ratio: float
    extra_ratio: float
    decay: float
    overlaps: int

    def exceeded(self, overlaps: OverlapTable) -> str | None:
        """Why the objects are too many to be matched; None when they are not.

        Objects are counted by the highest id on both sides, as the official scorer does.
        """
        true, predicted = (n - 1 for n in overlaps.table.shape)
        if not true or not predicted:
            return None
        allowed = self.final_ratio + self.extra_ratio * math.exp(-true / self.decay)
        if predicted / true > allowed:
            return f"{predicted:,} predicted objects for {true:,} in the truth, which allow {allowed * true:,.0f}"
        pairs = len(overlaps.pairs[0])
        if pairs > self.overlaps:
            return f"{pairs:,} overlapping pairs of objects, where {self.overlaps:,} are allowed"
        return None


def match(overlaps: OverlapTable) -> NDArray[np.int64]:
    """By predicted object (0 is background) the truth id it is matched with, 0 for none.

    One to one, of the smallest sum of 1 - IoU, where leaving a true object unmatched costs more than any
    overlap.
    """
    truth, predicted, _ = overlaps.pairs
    iou = overlaps.iou.astype(np.float32)
    kept = iou > 0
    costs = ((1.0 - iou[kept].astype(np.float64)) * _COST_OF_NO_OVERLAP).astype(np.int64)
    matched = np.zeros(overlaps.predicted + 1, np.int64)
    if len(costs):
        flowing = _flows(truth[kept], predicted[kept], costs, *(n - 1 for n in overlaps.table.shape))
        matched[predicted[kept][flowing]] = truth[kept][flowing]
    return matched


def _flows(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    costs: NDArray[np.int64],
    truth_count: int,
    predicted_count: int,
) -> NDArray[np.bool_]:
    """Which of the pairs carry flow in the cheapest flow of one unit per true object."""
    from ortools.graph.python import min_cost_flow

    source, sink = 0, truth_count + predicted_count + 1
    truth_nodes = np.arange(1, truth_count + 1)
    predicted_nodes = np.arange(truth_count + 1, sink)
    tails = [np.full(truth_count, source), truth_nodes, truth, predicted_nodes]
    heads = [truth_nodes, np.full(truth_count, sink), truth_count + predicted, np.full(predicted_count, sink)]
    unit_costs = [
        np.zeros(truth_count),
        np.full(truth_count, _COST_OF_NO_MATCH),
        costs,
        np.zeros(predicted_count),
    ]
    solver = min_cost_flow.SimpleMinCostFlow()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(
        np.concatenate(tails).astype(np.int32),
        np.concatenate(heads).astype(np.int32),
        np.ones(2 * truth_count + len(truth) + predicted_count, np.int64),
        np.concatenate(unit_costs).astype(np.int64),
    )
    solver.set_node_supply(source, truth_count)
    solver.set_node_supply(sink, -truth_count)
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise RuntimeError(f"the matching of {truth_count:,} objects was not solved: {status}")
    return np.asarray(solver.flows(arcs[2 * truth_count : 2 * truth_count + len(truth)]) == 1)
