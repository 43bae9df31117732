"""Scoring a submission against the truth's store, as a person does it."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_submission as small
import zarr
from rich.console import Console

from ensemble.cli import score_tables as score_table
from ensemble.core.manifest import Target
from ensemble.scoring import evaluation as score
from ensemble.scoring.scores import Scores, Status
from ensemble.support.errors import SubmissionError, VolumeError
from ensemble.support.progress import QuietProgress

GRID = small.GRID
SIZE = GRID.size


def write_truth(root: Path, masks: small.Masks | None = None, attributes: dict | None = None) -> Path:
    """Truth of both crops in the challenge's layout; crop 984's nucleus is empty."""
    attributes = attributes or {"voxel_size": list(GRID.voxel_size_nm), "translation": list(GRID.origin_nm)}
    store = zarr.open_group(root, mode="w", zarr_format=2)
    for name, mask in (masks or small.good()).items():
        array = store.create_array(f"crop557/{name}", shape=mask.shape, dtype=mask.dtype, chunks=(40, 20, 30))
        array.attrs.update(attributes)
        array[:] = mask
    grid = small.SMALL.grid
    nuc = store.create_array("crop984/nuc", shape=grid.shape, dtype=np.uint8, chunks=grid.shape)
    nuc.attrs.update({"voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)})
    return root


@pytest.fixture
def truth(tmp_path) -> Path:
    return write_truth(tmp_path / "truth.zarr")


@pytest.fixture
def submission(tmp_path) -> Path:
    """The folder of a perfect submission, to be spoilt."""
    return small.write(tmp_path / "submission")


def scored(submission: Path, truth: Path, **kwargs) -> Scores:
    return score.score(small.zipped(submission), truth, small.TARGETS, **kwargs)


def shown(*args, **kwargs) -> str:
    console = Console(file=io.StringIO(), width=160)
    for part in score_table.report(*args, **kwargs):
        console.print(part)
    return console.file.getvalue()


def test_the_truth_itself_is_perfect(submission, truth):
    scores = scored(submission, truth)
    assert scores.by_class == dict.fromkeys(("nuc", "mito", "ecs", "mito_mem", "mito_lum"), 1.0)
    assert scores.overall.score == 1.0
    assert scores.arrays["crop984"]["nuc"].status == Status.EMPTY_TRUTH


def test_an_empty_submission_finds_nothing(submission, truth):
    empty = {name: np.zeros_like(mask) for name, mask in small.good().items()}
    scores = scored(small.write(submission, empty), truth)
    assert set(scores.by_class.values()) == {0.0}
    assert scores.overall.score == 0.0


def test_json_is_the_official_result_and_more(submission, truth):
    """One of two mitochondria is lost, and half of the extracellular space is made up."""
    masks = small.good()
    masks["mito"][masks["mito"] == 2] = 0
    masks["ecs"][:] = 1
    said = json.loads(scored(small.write(submission, masks), truth).to_json())
    ecs = int(small.good()["ecs"].sum())
    farthest = min(n * v / 2 for n, v in zip(GRID.shape, GRID.voxel_size_nm, strict=True))
    lost = 1.01 ** (-float(np.float32(farthest)) / math.sqrt(1.74**2 + 4 + 4))
    mito = said["label_scores"]["mito"]
    assert said["rules"] == "2026-06"
    assert mito["f1"] == 2 / 3
    assert mito["normalized_hausdorff_distance"] == pytest.approx((1 + lost) / 2, abs=1e-12)
    assert mito["combined_score"] == pytest.approx(math.sqrt(2 / 3 * (1 + lost) / 2), abs=1e-12)
    assert said["label_scores"]["ecs"]["iou"] == ecs / SIZE
    assert said["overall_instance_score"] == pytest.approx((mito["combined_score"] + 1) / 2, abs=1e-12)
    assert said["overall_semantic_score"] == pytest.approx((ecs / SIZE + 2) / 3, abs=1e-12)
    product = said["overall_instance_score"] * said["overall_semantic_score"]
    assert said["overall_score"] == pytest.approx(math.sqrt(product), abs=1e-12)
    array = said["crops"]["crop557"]["mito"]
    assert (array["status"], array["tp"], array["fp"], array["fn"]) == ("scored", 1, 0, 1)
    assert array["n_hausdorff"] == 2
    assert array["hausdorff_norm_sum"] == pytest.approx(1 + lost, abs=1e-12)
    assert said["crops"]["crop984"]["nuc"]["status"] == "empty truth"
    assert mito["overall_score_if_perfect"] == pytest.approx(math.sqrt(said["overall_semantic_score"]), abs=1e-12)


def test_all_metrics_stand_beside_the_official_ones(submission, truth):
    said = json.loads(scored(submission, truth).to_json("all"))["label_scores"]
    assert said["mito"].keys() >= {"f1", "adapted_rand_error", "voi_split", "voi_merge", "panoptic_quality"}
    assert said["ecs"].keys() >= {"iou", "dice", "precision", "recall", "f1"}
    assert "dice" not in json.loads(scored(submission, truth).to_json())["label_scores"]["ecs"]


def test_crops_are_pooled_before_they_are_scored(submission, truth):
    """A made-up nucleus in crop 984 costs the class, not a mean over crops: F1 = 2 / 3."""
    nuc = np.zeros(small.SMALL.grid.shape, np.uint8)
    nuc[1, 1, 1] = 1
    small.create_array(submission, small.SMALL, "nuc", np.uint8)[:] = nuc
    got = json.loads(scored(submission, truth).to_json())["label_scores"]["nuc"]
    made_up = 1.01 ** (-64 / math.sqrt(3 * 32**2))
    assert got["f1"] == 2 / 3
    assert got["normalized_hausdorff_distance"] == pytest.approx((1 + made_up) / 2, abs=1e-12)


def test_a_missing_array_costs_every_voxel_or_every_object(submission, truth):
    small.remove(submission, "crop557/mito")
    small.remove(submission, "crop557/ecs")
    scores = scored(submission, truth)
    ecs, mito = (scores.arrays["crop557"][name] for name in ("ecs", "mito"))
    assert (ecs.status, ecs.tally.fn) == (Status.MISSING, SIZE)
    assert (mito.status, mito.tally.fn, mito.tally.distances, mito.tally.distance_scores) == (Status.MISSING, 2, 2, 0)
    assert (scores.by_class["ecs"], scores.by_class["mito"]) == (0, 0)


def test_a_missing_crop_is_all_of_its_arrays_missing(submission, truth):
    small.remove(submission, "crop984")
    scores = scored(submission, truth)
    assert scores.arrays["crop984"]["nuc"].status == Status.MISSING
    assert scores.by_class["nuc"] == 1.0  # there was no nucleus to be found


def test_a_mask_limits_what_counts_and_is_no_class_of_its_own(submission, tmp_path):
    mask = np.ones(small.SHAPE, np.uint8)
    mask[:, :2] = 0
    truth = write_truth(tmp_path / "truth.zarr", small.good() | {"ecs_mask": mask, "mito_mask": mask})
    masks = small.good()
    masks["ecs"][:, :2] = 1 - masks["ecs"][:, :2]
    masks["mito"][0, 0, 0] = 77
    scores = scored(small.write(submission, masks), truth)
    assert scores.by_class["ecs"] == scores.by_class["mito"] == 1.0
    assert scores.arrays["crop557"]["ecs"].tally.tp == int(small.good()["ecs"][:, 2:].sum())
    assert scores.overall.semantic == 1.0
    assert "ecs_mask" not in scores.to_json()


def test_a_mask_does_not_help_a_missing_array(submission, tmp_path):
    nothing = np.zeros(small.SHAPE, np.uint8)
    truth = write_truth(tmp_path / "truth.zarr", small.good() | {"mito_mask": nothing})
    small.remove(submission, "crop557/mito")
    assert scored(submission, truth).arrays["crop557"]["mito"].tally.fn == 2


def test_too_many_objects_are_told_and_do_not_count(submission, truth):
    masks = small.good()
    masks["nuc"][::2, ::2, ::2] = 1
    scores = scored(small.write(submission, masks), truth)
    array = scores.arrays["crop557"]["nuc"]
    assert (array.status, array.tally.tp, array.tally.distances) == (Status.TOO_MANY, 0, 0)
    assert "crop557/nuc is left out of its class: " in shown(scores)


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


def test_truth_off_the_grid_is_named(submission, tmp_path):
    truth = write_truth(tmp_path / "truth.zarr", attributes={"voxel_size": [4, 4, 4], "translation": [0, 0, 0]})
    with pytest.raises(VolumeError, match=r"truth.zarr/crop557/ecs: has voxel_size .* and translation"):
        scored(submission, truth)


def test_truth_that_does_not_say_where_it_lies_is_taken_as_it_is(submission, tmp_path):
    truth = write_truth(tmp_path / "truth.zarr", attributes={"voxel_size": list(GRID.voxel_size_nm)})
    assert scored(submission, truth).overall.score == 1.0


def test_what_has_no_truth_does_not_count_and_is_told(submission, tmp_path):
    masks = {name: mask for name, mask in small.good().items() if name != "nuc"}
    scores = scored(submission, write_truth(tmp_path / "truth.zarr", masks))
    assert scores.arrays["crop557"]["nuc"].status == Status.NO_TRUTH
    assert scores.tallies["nuc"].tp == 0
    assert "1 arrays are without truth, and left out: crop557/nuc" in shown(scores)


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
    assert score.score(submission, tmp_path / "data", [target]).by_class == {"mito": 1.0}


def test_threads_and_memory_do_not_change_the_scores(submission, truth):
    masks = small.good()
    masks["mito"] = np.roll(masks["mito"], 2, axis=2)
    small.write(submission, masks)
    alone = scored(submission, truth, resources=score.ScoringLimits(workers=1, memory_bytes=2**30))
    cramped = scored(submission, truth, resources=score.ScoringLimits(workers=4, memory_bytes=1))
    assert alone.to_json("all") == cramped.to_json("all")


def test_progress_ends_when_every_voxel_is_done(submission, truth):
    class Seen(QuietProgress):
        total, done = 0.0, 0.0

        def stage(self, name, total):
            self.total = total

        def at(self, done, what=""):
            self.done = done

    seen = Seen()
    scored(submission, truth, progress=seen)
    assert seen.done == seen.total == 5 * SIZE + small.SMALL.grid.size


def test_the_table_puts_what_gains_most_first_and_is_plain_in_a_pipe(submission, truth):
    masks = small.good()
    masks["nuc"][:] = 0
    masks["ecs"][0] = 0
    masks["mito_lum"][:] = 0
    text = shown(scored(small.write(submission, masks), truth), by_crop=True, which="all")
    assert "\x1b" not in text
    rows = [line.split()[1] for line in text.partition("metrics")[0].splitlines() if line.startswith("│")]
    assert rows[-5:] == ["nuc", "mito", "mito_lum", "ecs", "mito_mem"]
    assert "empty truth" in text
    assert text.rstrip().endswith("rules 2026-06")


def test_classes_with_nothing_anywhere_are_told_in_a_line(submission, tmp_path):
    masks = small.good()
    masks["nuc"][:] = masks["ecs"][:] = 0
    truth = write_truth(tmp_path / "truth.zarr", masks)
    text = shown(scored(small.write(submission, masks), truth))
    assert "2 classes have nothing in the truth or the prediction, which counts as 1: nuc ecs" in text
    assert "│ nuc" not in text


def test_against_another_submission_shows_what_changed(submission, truth):
    before = scored(submission, truth)
    masks = small.good()
    masks["nuc"][:] = 0
    text = shown(scored(small.write(submission, masks), truth), against=before)
    changes = text.partition("against the other submission")[2]
    (nuc,) = (line for line in changes.splitlines() if line.startswith("│ nuc"))
    assert nuc.replace("│", " ").split() == ["nuc", "0.0000", "1.0000", "-1.0000"]
    assert "-0.2929" in changes  # overall: √(1/2) - 1


def test_scores_can_be_logged_by_name(submission, truth):
    flat = scored(submission, truth).flat()
    assert flat["overall_score"] == flat["mito/combined_score"] == flat["ecs/iou"] == 1.0
    assert len(flat) == 3 + 5


def test_arrays_are_scored_without_zarr_or_torch():
    code = (
        "import sys, numpy as np; from ensemble import score; a = np.ones((3, 3, 3), np.uint8);"
        "assert score.instance(a, a, (8, 8, 8))['combined_score'] == score.semantic(a, a)['iou'] == 1;"
        "print({'zarr', 'torch', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
