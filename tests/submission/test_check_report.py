"""What a check says: rows, warnings and the same again from JSON."""

import json

import numpy as np
import pytest

from ensemble.submission.check_report import ArrayContents, ArrayPlace, BrokenRelation, CheckReport, DecodedClass
from ensemble.submission.checking import truth_objects_needed
from ensemble.submission.writer import create_array
from tests.support.small_submission import SHAPE, TARGET, checked, good, write


def test_the_report_is_the_same_as_json(tmp_path):
    data = json.loads(checked(write(tmp_path / "s")).to_json())
    assert data["faults"] == [] and data["empty"] == ["crop984/nuc"]
    assert data["arrays"]["crop557"]["ecs"] == {"dtype": "|u1", "nonzero_voxels": good()["ecs"].sum(), "highest_id": 1}
    assert data["arrays"]["crop557"]["mito"] == {
        **{"dtype": "|u1", "nonzero_voxels": 2 * 9 * 10 * 10, "highest_id": 2, "objects": 2, "truth_objects_needed": 1},
        **{"at_border": 0, "sizes_log2_voxels": {"9": 2}},
    }


def test_a_row_leaves_out_what_is_not_known_but_tells_that_objects_are_not():
    assert ArrayContents("<f4", 3, 0).as_plain("ecs") == {"dtype": "<f4", "nonzero_voxels": 3, "highest_id": 0}
    unknown = {"objects": None, "truth_objects_needed": None}
    assert ArrayContents("<f4", 3, 0).as_plain("mito") == {
        "dtype": "<f4",
        "nonzero_voxels": 3,
        "highest_id": 0,
        **unknown,
    }


@pytest.mark.parametrize(
    ("objects", "needed"), [(0, 0), (1, 1), (50, 1), (51, 2), (142, 6), (10_000, 1000), (10_001, 1001)]
)
def test_how_many_truth_objects_an_array_needs_to_count(objects, needed):
    """10 n + 50 n e^(-n/5) objects are allowed for n: 50.9 for 1, 87.0 for 2, 141.97 for 5, 140.4 for 6 …"""
    assert truth_objects_needed(objects) == needed


def specks(shape: tuple[int, int, int], step: int) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[::step, ::step, ::step] = 1
    return mask


def test_too_many_objects_are_a_warning_that_says_how_many_would_be_allowed(tmp_path):
    masks = good()
    root = write(tmp_path / "s", masks, {"consistency": "none"})
    create_array(root, TARGET, "nuc", np.uint8)[TARGET.grid.box] = specks(SHAPE, 2)
    report = checked(root)
    count = 35 * 10 * 15
    assert report.arrays["crop557"]["nuc"].objects == count
    (warning,) = [w for w in report.warnings if w.startswith("crop557/nuc")]
    assert "5,250 objects" in warning and "the truth has 525 or more" in warning


def test_what_joint_decoding_changed_is_added_up_and_told_above_5_percent(tmp_path):
    decoding = {
        "crop557": {
            "mito": {"alone": 1000, "removed": 30, "added": 0},
            "ecs": {"alone": 100, "removed": 5, "added": 6},
            "nuc": {"alone": 0, "removed": 0, "added": 2},
        },
        "crop984": {"mito": {"alone": 1000, "removed": 90, "added": 10}},
    }
    decoding["crop557"]["mito"] |= {"most_voxels": 20, "most_at_voxels": [0, 0, 0]}
    decoding["crop984"]["mito"] |= {"most_voxels": 70, "most_at_voxels": [32, 0, 0]}
    before = {
        "crop557": {"voxels": 30, "relations": {"mito_mem outside mito": 20, "ecs and mito at once": 15}},
        "crop984": {"voxels": 5, "relations": {"mito_mem outside mito": 5}},
    }
    attributes = {"decoding": decoding, "contradictions_before": before}
    report = checked(write(tmp_path / "s", attributes=attributes))
    most = ArrayPlace("crop984", 70, (32, 0, 0))
    assert report.decoding["mito"] == DecodedClass(2000, 120, 10, most)
    assert report.decoding["ecs"].most_changed is None
    assert CheckReport.from_json(report.to_json()) == report
    assert report.violations_before == {"crop557": 30, "crop984": 5}
    assert report.relations == {
        "mito_mem outside mito": BrokenRelation(25, 0),
        "ecs and mito at once": BrokenRelation(15, 0),
    }
    assert report.faults == ()
    assert report.warnings == (
        "mito: joint decoding removed 120 voxels, where the class alone has 2,000 (6.0%)",
        "ecs: joint decoding added 6 voxels, where the class alone has 100 (6.0%)",
        "nuc: joint decoding added 2 voxels, where the class alone has 0",
    )
