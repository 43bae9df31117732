"""Which manifest a submission was made for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.manifest import official_departure, official_manifest
from ensemble.submission.made_for import made_for
from ensemble.submission.reader import Submission
from ensemble.submission.writer import create_array
from tests.support.small_submission import SMALL, TARGET, TARGETS, write


def placed(root: Path, places: set[str]) -> Path:
    """Arrays by name only."""
    for place in {".", *places}:
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / (".zgroup" if place == "." else ".zarray")).write_text("{}")
    return root


OFFICIAL = {place for target in official_manifest() for place in target.places}


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (OFFICIAL, "the challenge's manifest (413 arrays)"),
        (OFFICIAL | official_departure().places, "the challenge's manifest of before 2026-06-29 (420 arrays)"),
        (OFFICIAL - {"crop557/mito"}, "a part of this manifest: 412 of 413 arrays"),
        ({"crop557/mito", "crop1/mito"}, "another manifest: it holds 1 of the 413 arrays of this one and 1 other"),
    ],
)
def test_the_manifest_that_asks_for_the_very_arrays_is_named(tmp_path, places, said):
    with Submission.open(placed(tmp_path, places)) as submission:
        assert made_for(submission, official_manifest()) == said


def test_a_manifest_of_ones_own_is_this_one(tmp_path):
    root = write(tmp_path)
    with Submission.open(root) as submission:
        assert made_for(submission, TARGETS) == "this manifest (6 arrays)"
        fewer = [replace(TARGET, classes=("mito",)), SMALL]
        assert made_for(submission, fewer) == "another manifest: it holds 2 of the 2 arrays of this one and 4 others"
    create_array(root, SMALL, "mito", np.uint8)
    with Submission.open(root) as submission:
        assert made_for(submission, TARGETS).endswith("6 of the 6 arrays of this one and 1 other")
