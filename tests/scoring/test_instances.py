"""One crop of an instance class, against brute force on small random volumes."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble.scoring.evaluation import instance_scores
from ensemble.scoring.instances import compare, farthest_nm
from ensemble.scoring.matching import MatchingLimits
from ensemble.scoring.objects import split_objects
from tests.support.brute_score import outcomes

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
@settings(max_examples=250)
def test_a_crop_has_an_outcome_that_the_rules_allow(pair, voxel_size):
    allowed = outcomes(*pair, voxel_size)
    got = instance_scores(*pair, voxel_size)
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


def test_a_crop_is_compared_object_by_object():
    truth, prediction = np.zeros((2, 8, 10, 12), np.uint16)
    truth[1:3, 1:3, 1:3], truth[5:7, 5:7, 5:9] = 1, 2
    prediction[1:3, 1:3, 1:3], prediction[7, 9, 11] = 4, 5
    objects, _ = split_objects(prediction)
    limits = MatchingLimits(final_ratio=10, extra_ratio=50, decay=5, overlaps=100)
    found = compare(truth, objects, (4.0, 4.0, 8.0), limits)
    assert farthest_nm(truth.shape, (4.0, 4.0, 8.0)) == found.farthest_nm == 16
    assert found.matched.tolist() == [True, False]
    # object 2 of the prediction is matched with nothing and so is taken for truth 2, whose number it has
    assert found.distances_nm.tolist() == [0, 16]
    assert (found.tp, found.fp, found.fn) == (1, 1, 1)
