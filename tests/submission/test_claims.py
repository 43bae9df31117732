"""What a submission says of itself in its root: read where it makes sense, a fault where it does not."""

from pathlib import Path

import pytest

from ensemble.core.contradictions import ClassChange, Violations
from ensemble.submission.claims import Claims, read_claims
from ensemble.submission.layout import FaultNotes
from ensemble.submission.reader import Submission
from tests.support.faulty import metadata, the_only_fault_is, write_text
from tests.support.small_submission import write

FAULTS = {
    "unclaimed": (
        metadata(".zattrs", unclaimed={"crop557": ["ecs"]}),
        "crop557/ecs: is listed as unclaimed but has",
    ),
    "unclaimed type": (metadata(".zattrs", unclaimed=["ecs"]), "root attribute unclaimed"),
    "consistency type": (metadata(".zattrs", consistency="joined"), "root attribute consistency is 'joined'"),
    "decoding type": (metadata(".zattrs", decoding={"crop557": 3}), "root attribute decoding"),
    "decoding place": (
        metadata(
            ".zattrs",
            decoding={"crop557": {"mito": {"alone": 1, "removed": 0, "added": 0, "most_at_voxels": [0, -1, 0]}}},
        ),
        "root attribute decoding",
    ),
    "decoding class": (
        metadata(".zattrs", decoding={"crop557": {"[/x]": {"alone": 1, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "decoding huge": (
        metadata(".zattrs", decoding={"crop557": {"mito": {"alone": 10**400, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "decoding bool": (
        metadata(".zattrs", decoding={"crop557": {"mito": {"alone": True, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "before type": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3}}),
        "root attribute contradictions_before",
    ),
    "before words": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3, "relations": {"[/red] outside mito": 1}}}),
        "root attribute contradictions_before",
    ),
    "before count": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3, "relations": {"mito outside cell": 4}}}),
        "root attribute contradictions_before",
    ),
    "root no JSON": (write_text(".zattrs", "{"), ".zattrs: not readable as JSON"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_named_and_told_in_one_line(tmp_path, case):
    make, expected = FAULTS[case]
    root = write(tmp_path / "s")
    make(root)
    the_only_fault_is(root, expected)


def claimed(root: Path) -> tuple[Claims, FaultNotes]:
    notes = FaultNotes(root)
    with Submission.open(root) as submission:
        return read_claims(submission, notes), notes


def test_what_a_builder_says_is_read_as_it_was_said(tmp_path):
    changed = {"alone": 9, "removed": 2, "added": 1, "most_voxels": 3, "most_at_voxels": [0, 64, 0]}
    attributes = {
        "consistency": "report",
        "unclaimed": {"crop557": ["nuc", "ecs"]},
        "decoding": {"crop984": {"nuc": changed}},
        "contradictions_before": {"crop557": {"voxels": 3, "relations": {"mito_mem outside mito": 3}}},
    }
    found, notes = claimed(write(tmp_path / "s", attributes=attributes))
    assert found.consistency == "report"
    assert found.unclaimed == {"crop557": {"nuc", "ecs"}}
    assert found.decoding == {"crop984": {"nuc": ClassChange(9, 2, 1, 3, (0, 64, 0))}}
    assert found.before == {"crop557": Violations(3, {"mito_mem outside mito": 3})}
    assert (notes.faults, notes.warnings) == ([], [])


def test_who_says_nothing_is_held_to_joint_decoding(tmp_path):
    assert claimed(write(tmp_path / "s"))[0] == Claims(consistency="joint")
