"""What anyone relies on who reads a submission: every block as it was written."""

import zipfile

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.submission.reader import Submission
from ensemble.support.errors import SubmissionError
from tests.support.small_store import COARSE, FINE, labels


@pytest.mark.parametrize("unzipped", [False, True])
def test_any_block_reads_as_it_was_written(store, packed, unzipped):
    truth = labels(FINE, 0)
    with Submission.open(store if unzipped else packed) as submission:
        assert submission.attributes == {"unclaimed": {"crop557": ["er"]}}
        assert submission.crops == ("crop557", "crop984")
        assert submission.names("crop557") == ("er", "mito")
        array = submission.array("crop557", "mito")
        assert (array.shape, array.dtype, array.chunks) == ((70, 130, 40), np.dtype("<u2"), (64, 128, 40))
        assert array.grid == FINE.grid
        for box in (FINE.grid.box, Box((60, 120, 3), (66, 129, 9)), Box((65, 128, 0), (70, 130, 1))):
            np.testing.assert_array_equal(array.read(box), truth[box.slices])
        part = submission.read("crop984", "nuc", Box((1, 0, 2), (3, 6, 7)))
        np.testing.assert_array_equal(part, labels(COARSE, 1)[1:3, 0:6, 2:7])
        assert not submission.read("crop557", "er", FINE.grid.box).any()


def test_a_zip_without_a_store_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(SubmissionError, match=r"there is no \.zgroup at its root"):
        Submission.open(tmp_path / "x.zip")


def test_a_missing_crop_or_array_is_told(packed):
    with Submission.open(packed) as submission:
        with pytest.raises(SubmissionError, match="crop985/nuc: is missing, as the whole crop is"):
            submission.array("crop985", "nuc")
        with pytest.raises(SubmissionError, match="crop557/ld: is missing"):
            submission.array("crop557", "ld")
