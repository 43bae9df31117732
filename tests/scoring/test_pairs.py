"""A submission's arrays beside their truth: what does not lie on the grid is named."""

import numpy as np
import pytest

from ensemble.scoring.pairs import pair_up
from ensemble.submission.reader import Submission
from ensemble.support.errors import SubmissionError
from tests.support import small_submission as small
from tests.support.scored_submission import scored, write_truth


def test_every_array_off_the_grid_is_named_in_one_line(submission, truth):
    small.edit(submission / "crop557/mito/.zattrs", translation=[0.0, 7599.0, 35999.0])
    small.edit(submission / "crop557/ecs/.zattrs", voxel_size=[2, 2, 2])
    small.rewrite(submission, "nuc", np.zeros((70, 20, 29), np.uint8))
    with pytest.raises(SubmissionError) as refused:
        scored(submission, truth)
    said = str(refused.value)
    assert "\n" not in said
    assert "crop557/mito has translation [0.0, 7599.0, 35999.0] where the manifest has [23837.13" in said
    assert "crop557/ecs has voxel_size [2.0, 2.0, 2.0] where the manifest has [1.74, 2.0, 2.0]" in said
    assert "crop557/nuc has shape [70, 20, 29] where the manifest has [70, 20, 30]" in said


@pytest.mark.parametrize("dtype", ["<f4", ">u2"])
def test_ids_that_the_server_cannot_read_are_refused(submission, truth, dtype):
    small.rewrite(submission, "mito", small.good()["mito"].astype(dtype))
    with pytest.raises(SubmissionError, match=f"crop557/mito has dtype {dtype}"):
        scored(submission, truth)


def test_a_damaged_chunk_is_named(submission, truth):
    small.cut_chunk(submission)
    with pytest.raises(SubmissionError, match=r"crop557/mito: chunk 1\.0\.0 cannot be decoded"):
        scored(submission, truth)


def test_arrays_are_read_slab_by_slab_beside_their_truth_and_masked(submission, tmp_path):
    mask = np.ones(small.SHAPE, np.uint8)
    mask[:, :3] = 0
    truth = write_truth(tmp_path / "masked.zarr", small.good() | {"mito_mask": mask})
    small.remove(submission, "crop557/ecs")
    with Submission.open(submission) as opened:
        paired = pair_up(opened, truth, small.TARGETS)
        pairs = {pair.place: pair for pair in paired.pairs}
        assert paired.without_truth == ()
        assert set(pairs) == {f"crop557/{name}" for name in small.TARGET.classes} | {"crop984/nuc"}
        expected = np.where(mask > 0, small.good()["mito"], 0)
        assert np.array_equal(pairs["crop557/mito"].whole_prediction(), expected)
        slabs = list(pairs["crop557/mito"].slabs())
        assert np.array_equal(np.concatenate([true for true, _ in slabs]), expected)
        assert pairs["crop557/ecs"].prediction is None
        assert not pairs["crop557/ecs"].whole_prediction().any()
