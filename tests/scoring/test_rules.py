"""Every rule and quirk of 2026-06 on a case small enough to be worked out by hand.

Objects lie along one line of a 20³ volume of 4 nm voxels, so a distance of n voxels is 4 n nm, none counts for
more than 40 nm, and a voxel's diagonal is 4 √3 nm.
"""

import math

import numpy as np
import pytest

from ensemble.scoring.evaluation import instance_scores
from ensemble.scoring.matching import MatchingLimits
from ensemble.scoring.objects import MAX_TRUTH_ID
from ensemble.scoring.rules import LATEST_RULES, RULES, rules_named
from ensemble.support.errors import EnsembleError

VOXEL = (4.0, 4.0, 4.0)
FARTHEST = 10  # voxels


def line(ids: str, dtype=np.uint8) -> np.ndarray:
    """A digit per voxel along x; a space or a dot is background."""
    volume = np.zeros((20, 20, 20), dtype)
    volume[3, 3, : len(ids)] = [int(c) if c.isdigit() else 0 for c in ids]
    return volume


def worth(voxels: float) -> float:
    return 1.01 ** (-voxels / math.sqrt(3))


def check(truth: str, prediction: str, counts: tuple[int, int, int], voxels: list[float]) -> None:
    """tp, fp, fn; and the distances of all objects that count, in voxels."""
    got = instance_scores(line(truth), line(prediction), VOXEL)
    assert (got["tp"], got["fp"], got["fn"]) == counts
    mean = sum(map(worth, voxels)) / len(voxels)
    assert got["normalized_hausdorff_distance"] == pytest.approx(mean, abs=1e-12)
    f1 = 2 * counts[0] / (2 * counts[0] + counts[1] + counts[2])
    assert got["f1"] == f1
    assert got["combined_score"] == pytest.approx(math.sqrt(f1 * mean), abs=1e-12)


def test_perfect():
    check("11.22..333", "11.22..333", (3, 0, 0), [0, 0, 0])


def test_ids_of_the_prediction_mean_nothing():
    check("11.22..333", "77.11..222", (3, 0, 0), [0, 0, 0])


def test_touching_ids_stay_apart():
    check("1122", "3355", (2, 0, 0), [0, 0])


def test_parts_of_one_predicted_id_are_objects_of_their_own():
    check("11...22", "11...11", (2, 0, 0), [0, 0])


def test_parts_that_touch_at_a_corner_are_one():
    truth, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    truth[3, 3, 3] = truth[4, 4, 4] = 1
    prediction[3, 3, 3] = prediction[4, 4, 4] = 9
    assert instance_scores(truth, prediction, VOXEL)["combined_score"] == 1.0


def test_missed_and_made_up_objects_count_as_far_as_can_be():
    check("11....", "....11", (0, 1, 1), [4, FARTHEST])  # object 1 has taken the number of truth 1: see below
    check("22....", "....11", (0, 1, 1), [FARTHEST, FARTHEST])
    check("22....", "", (0, 0, 1), [FARTHEST])
    check("", "11..2", (0, 2, 0), [FARTHEST, FARTHEST])


def test_any_overlap_is_a_match():
    check("1111111111", "1", (1, 0, 0), [9])


def test_distance_is_capped_at_half_of_the_shortest_side():
    check("111111111111111111", "1", (1, 0, 0), [FARTHEST])
    truth, prediction = np.zeros((2, 4, 50, 50), np.uint8)
    truth[1, 1, :40] = 1
    prediction[1, 1, 0] = 1
    got = instance_scores(truth, prediction, (10, 2, 2))
    assert got["normalized_hausdorff_distance"] == pytest.approx(1.01 ** (-20 / math.sqrt(108)), abs=1e-12)


def test_distance_goes_both_ways():
    check("11111", "1", (1, 0, 0), [4])
    check("1", "11111", (1, 0, 0), [4])


def test_all_voxels_of_an_object_count_and_not_only_its_surface():
    """The middle of a full block is five voxels from the hollow one, whose surface is the same."""
    truth, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    truth[2:13, 2:13, 2:13] = prediction[2:13, 2:13, 2:13] = 1
    prediction[3:12, 3:12, 3:12] = 0
    got = instance_scores(truth, prediction, VOXEL)
    assert got["normalized_hausdorff_distance"] == pytest.approx(worth(5), abs=1e-12)


def test_truth_in_two_parts_is_one_object_and_the_second_match_is_one_too_many():
    """IoU 2/3 beats 1/3, so the right part matches; the left one, object 1, is no part of truth 7."""
    check("7....77", "1....11", (1, 1, 0), [5, FARTHEST])


def test_unmatched_object_joins_the_truth_whose_id_is_its_number():
    """As above, but the left part is object 1 and the truth's id is 1: together they fit exactly."""
    check("1....11", "1....11", (1, 1, 0), [0, FARTHEST])


def test_unmatched_object_spoils_the_distance_of_the_truth_whose_id_is_its_number():
    """Object 2 matches truth 1, and object 1, far from it, comes along."""
    check("......11", "1.....11", (1, 1, 0), [6, FARTHEST])


def test_a_matched_object_has_given_its_number_away():
    """Object 1 matches truth 2 and no longer counts as object 1, so truth 1 has no prediction."""
    check("222...1", "222....", (1, 0, 1), [0, FARTHEST])


def test_best_sum_of_ious_wins_over_the_best_pair():
    """Object 2 overlaps truth 1 by 4/9 and truth 2 by 3/10, object 1 only truth 1, by 2/6."""
    check("111111222222", "112222222", (2, 0, 0), [4, 4])


def test_a_good_match_is_not_given_up_for_two_poor_ones():
    """Object 2 overlaps truth 1 by 3/5 and truth 2 by 1/5, object 1 only truth 1, by 1/4."""
    check("111122", "21111", (1, 1, 1), [1, FARTHEST, FARTHEST])


def test_distances_are_rounded_to_single_precision():
    truth, prediction = np.zeros((2, 9, 9, 9), np.uint8)
    truth[:4, 4, 4] = 1
    prediction[0, 4, 4] = 1
    got = instance_scores(truth, prediction, (1.74, 2.0, 2.0))
    rounded = float(np.float32(3 * 1.74))
    assert rounded != 3 * 1.74
    expected = 1.01 ** (-rounded / math.sqrt(1.74**2 + 4 + 4))
    assert got["normalized_hausdorff_distance"] == pytest.approx(expected, abs=1e-14)


def test_nothing_anywhere_is_perfect():
    got = instance_scores(line(""), line(""), VOXEL)
    assert (got["f1"], got["normalized_hausdorff_distance"], got["combined_score"]) == (1, 1, 1)
    assert got["status"] == "empty truth"


@pytest.mark.parametrize("highest", [255, 256, 65_535, 65_536, 70_000])
def test_high_ids_on_both_sides(highest):
    truth = line("11.22", np.uint32)
    truth[truth == 2] = highest
    prediction = truth.astype(np.uint64)
    prediction[prediction == 1] = 2**40
    got = instance_scores(truth, prediction, VOXEL)
    assert (got["tp"], got["combined_score"]) == (2, 1.0)


def dots(count: int) -> np.ndarray:
    volume = np.zeros((20, 20, 20), np.uint8)
    volume[::2, ::2, ::2] = (np.arange(1000) < count).reshape(10, 10, 10)
    return volume


def test_too_many_objects_leave_the_crop_out():
    """10 + 50 exp(-1/5) = 50.9 objects are allowed for one."""
    truth = line("1")
    assert instance_scores(truth, dots(50), VOXEL)["status"] == "scored"
    got = instance_scores(truth, dots(51), VOXEL)
    assert (got["status"], got["tp"], got["fp"], got["fn"]) == ("too many objects", 0, 0, 0)
    assert got["combined_score"] is None
    assert "51 predicted objects for 1" in got["why"]


def test_objects_of_the_truth_are_counted_by_the_highest_id():
    """The only object has the id 50, which allows 50 (10 + 50 exp(-10)) = 500.1 objects."""
    truth = line("1") * np.uint8(50)
    assert instance_scores(truth, dots(500), VOXEL)["status"] == "scored"
    assert instance_scores(truth, dots(501), VOXEL)["status"] == "too many objects"


def test_objects_are_never_too_many_without_truth():
    got = instance_scores(line(""), dots(900), VOXEL)
    assert (got["fp"], got["combined_score"]) == (900, 0.0)


def test_memory_order_does_not_matter():
    truth, prediction = line("1....11"), line("1....11")
    turned = instance_scores(np.asfortranarray(truth), np.asfortranarray(prediction), VOXEL)
    assert turned == instance_scores(truth, prediction, VOXEL)


@pytest.mark.parametrize(
    ("truth", "prediction", "said"),
    [
        (line("1"), line("1")[1:], "shape"),
        (line("1")[0], line("1")[0], "2 axes"),
        (line("1"), line("1", np.float32), "float32"),
        (line("1", np.int16) * -1, line("1"), "id -1"),
        (line("1", np.int64) * (MAX_TRUTH_ID + 1), line("1"), "renumber"),
    ],
)
def test_what_are_no_ids_is_refused(truth, prediction, said):
    with pytest.raises(ValueError, match=said):
        instance_scores(truth, prediction, VOXEL)


def test_unknown_rules_name_the_known_ones():
    with pytest.raises(EnsembleError, match=r"2026-6: .* did you mean '2026-06'"):
        instance_scores(line("1"), line("1"), VOXEL, rules_name="2026-6")


def test_rules_are_found_by_their_name():
    assert rules_named(LATEST_RULES).name == LATEST_RULES == "2026-06"
    assert set(RULES) >= {LATEST_RULES}
    assert rules_named(LATEST_RULES).limits == MatchingLimits(
        final_ratio=10, extra_ratio=50, decay=5, overlaps=5_000_000
    )
