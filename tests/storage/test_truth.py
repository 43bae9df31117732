"""Truth, where the challenge or training data keeps it."""

import numpy as np
import pytest
import zarr

from ensemble.core.manifest import Target
from ensemble.scoring.evaluation import score
from ensemble.storage.truth import open_truth, whole_truth
from ensemble.support.errors import VolumeError
from tests.support import small_submission as small
from tests.support.scored_submission import GRID, scored, write_truth


def test_truth_off_the_grid_is_named(submission, tmp_path):
    truth = write_truth(tmp_path / "truth.zarr", attributes={"voxel_size": [4, 4, 4], "translation": [0, 0, 0]})
    with pytest.raises(VolumeError, match=r"truth.zarr/crop557/ecs: has voxel_size .* and translation"):
        scored(submission, truth)


def test_truth_that_does_not_say_where_it_lies_is_taken_as_it_is(submission, tmp_path):
    truth = write_truth(tmp_path / "truth.zarr", attributes={"voxel_size": list(GRID.voxel_size_nm)})
    assert scored(submission, truth).overall.score == 1.0


def test_no_truth_at_all_says_what_to_do(submission, tmp_path):
    with pytest.raises(VolumeError, match=r"no truth for any crop of the manifest, such as crop557.*--manifest"):
        scored(submission, tmp_path / "nowhere.zarr")


def test_truth_is_found_where_training_data_keeps_it(submission, tmp_path):
    """{dataset}/{dataset}.zarr/recon-1/labels/groundtruth/crop{N}/{class}/s0 with OME-NGFF multiscales."""
    target = Target("557", small.TARGET.dataset, GRID, ("mito",))
    place = f"{target.dataset}/{target.dataset}.zarr/recon-1/labels/groundtruth/crop557/mito"
    group = zarr.open_group(tmp_path / "data" / place, mode="w", zarr_format=2)
    group.create_array("s0", data=small.good()["mito"], chunks=(32, 32, 32))
    transforms = [
        {"type": "scale", "scale": list(GRID.voxel_size_nm)},
        {"type": "translation", "translation": list(GRID.origin_nm)},
    ]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    datasets = [{"path": "s0", "coordinateTransformations": transforms}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    assert score(submission, tmp_path / "data", [target]).by_class == {"mito": 1.0}


def test_truth_is_zero_where_its_mask_says_that_nothing_counts(tmp_path):
    mask = np.ones(small.SHAPE, np.uint8)
    mask[:, :5] = 0
    root = write_truth(tmp_path / "truth.zarr", small.good() | {"mito_mask": mask})
    labels, counts = whole_truth(root, small.TARGET, "mito")
    assert np.array_equal(counts, mask > 0)
    assert np.array_equal(labels, np.where(mask > 0, small.good()["mito"], 0))
    assert labels.max() == 2
    ecs, counts = whole_truth(root, small.TARGET, "ecs")
    assert counts is None
    assert np.array_equal(ecs, small.good()["ecs"])


def test_a_class_without_truth_has_none(tmp_path):
    root = write_truth(tmp_path / "truth.zarr")
    assert open_truth(root, small.TARGET, "golgi") is None
    assert whole_truth(root, small.TARGET, "golgi") is None
    assert open_truth(root, small.TARGET, "mito").grid == GRID
