"""Scoring a submission against the truth's store, as a person does it."""

import subprocess
import sys

import numpy as np

from ensemble.scoring.evaluation import ScoringLimits, tally_array
from ensemble.scoring.pooling import Tally
from ensemble.scoring.scores import ArrayStatus
from ensemble.support.progress import QuietProgress
from tests.support import small_submission as small
from tests.support.scored_submission import SIZE, scored, shown, write_truth


def test_the_truth_itself_is_perfect(submission, truth):
    scores = scored(submission, truth)
    assert scores.by_class == dict.fromkeys(("nuc", "mito", "ecs", "mito_mem", "mito_lum"), 1.0)
    assert scores.overall.score == 1.0
    assert scores.arrays["crop984"]["nuc"].status == ArrayStatus.EMPTY_TRUTH


def test_an_empty_submission_finds_nothing(submission, truth):
    empty = {name: np.zeros_like(mask) for name, mask in small.good().items()}
    scores = scored(small.write(submission, empty), truth)
    assert set(scores.by_class.values()) == {0.0}
    assert scores.overall.score == 0.0


def test_a_missing_array_costs_every_voxel_or_every_object(submission, truth):
    small.remove(submission, "crop557/mito")
    small.remove(submission, "crop557/ecs")
    scores = scored(submission, truth)
    ecs, mito = (scores.arrays["crop557"][name] for name in ("ecs", "mito"))
    assert (ecs.status, ecs.tally.fn) == (ArrayStatus.MISSING, SIZE)
    assert (mito.status, mito.tally.fn, mito.tally.distances, mito.tally.distance_scores) == (
        ArrayStatus.MISSING,
        2,
        2,
        0,
    )
    assert (scores.by_class["ecs"], scores.by_class["mito"]) == (0, 0)


def test_a_missing_crop_is_all_of_its_arrays_missing(submission, truth):
    small.remove(submission, "crop984")
    scores = scored(submission, truth)
    assert scores.arrays["crop984"]["nuc"].status == ArrayStatus.MISSING
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
    assert (array.status, array.tally.tp, array.tally.distances) == (ArrayStatus.TOO_MANY, 0, 0)
    assert "crop557/nuc is left out of its class: " in shown(scores)


def test_what_has_no_truth_does_not_count_and_is_told(submission, tmp_path):
    masks = {name: mask for name, mask in small.good().items() if name != "nuc"}
    scores = scored(submission, write_truth(tmp_path / "truth.zarr", masks))
    assert scores.arrays["crop557"]["nuc"].status == ArrayStatus.NO_TRUTH
    assert scores.tallies["nuc"].tp == 0
    assert "1 array is without truth, and left out: crop557/nuc" in shown(scores)


def test_blocks_of_an_array_add_up_and_too_many_objects_count_as_none_found():
    truth, prediction = np.zeros((2, 12, 10, 10), np.uint8)
    truth[1:3, 1:3, 1:3], truth[7:9, 1:3, 1:3], prediction[1:3, 1:3, 2:4] = 1, 2, 5
    halves = [tally_array("mito", truth[part], prediction[part], (4, 4, 4)) for part in (np.s_[:6], np.s_[6:])]
    assert [(half.tp, half.fp, half.fn) for half in halves] == [(1, 0, 0), (0, 0, 1)]
    assert (sum(halves, Tally()).tp, sum(halves, Tally()).fn) == (1, 1)
    assert tally_array("ecs", truth, prediction, (4, 4, 4)) == Tally(tp=4, fp=4, fn=12)
    specks = np.zeros_like(truth)
    specks[::2, ::2, ::2] = 1
    lost = tally_array("mito", np.minimum(truth, 1), specks, (4, 4, 4))
    assert (lost.tp, lost.fp, lost.fn, lost.distances, lost.distance_scores) == (0, 0, 1, 1, 0)


def test_threads_and_memory_do_not_change_the_scores(submission, truth):
    masks = small.good()
    masks["mito"] = np.roll(masks["mito"], 2, axis=2)
    small.write(submission, masks)
    alone = scored(submission, truth, limits=ScoringLimits(workers=1, memory_bytes=2**30))
    cramped = scored(submission, truth, limits=ScoringLimits(workers=4, memory_bytes=1))
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


def test_arrays_are_scored_without_zarr_or_torch():
    code = (
        "import sys, numpy as np; from ensemble.scoring.evaluation import instance_scores, semantic_scores;"
        "a = np.ones((3, 3, 3), np.uint8);"
        "assert instance_scores(a, a, (8, 8, 8))['combined_score'] == semantic_scores(a, a)['iou'] == 1;"
        "print({'zarr', 'torch', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
