"""A search ends where there is too little truth, or no time."""

import time
from pathlib import Path

import numpy as np

from ensemble.tune.search import Effort
from tests.support.small_tuning import GRID, RECIPE, tuned
from tests.support.volumes import write_array


def test_too_little_truth_changes_nothing_and_says_so(place):
    Path("mine.yaml").write_text(RECIPE + "tune: {nuc: fixed, er: fixed}\n")
    labels = np.zeros(GRID.shape, np.uint16)
    labels[8:16, 8:16, 8:16] = 1
    write_array(place / "truth.zarr" / "crop5" / "mito", labels, GRID, chunk=64)
    found = tuned()["classes"]["mito"]
    assert found["why"] == "too little truth: 0 objects in a fold, 2 are needed"
    assert not found["changed"]


def test_time_that_is_up_ends_the_search_with_what_was_found(place):
    found = tuned("--minutes", "0", "--trials", "100")
    assert found["classes"]["er"]["route"]["threshold"] > 0.7  # a curve takes no trials
    evaluated = Path("build/mine-tune/work/evaluated").read_text().splitlines()
    assert len(evaluated) < 100  # no search began its trials


def test_a_search_is_over_when_its_time_is_and_not_before():
    assert not Effort().over
    assert not Effort(deadline=time.monotonic() + 1e6).over
    assert Effort(deadline=time.monotonic() - 1).over
