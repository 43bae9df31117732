"""Building for real: registered checkpoints, EM on disk, one command, one zip."""

import json
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from small_build import (
    ALL,
    BUILD,
    EMPTY,
    RECIPE,
    card,
    checkpoint,
    edit,
    predictions,
    run,
    runs,
    start,
    wait_for,
    wrong,
)
from volumes import noise, write_array, write_em

from ensemble.cli import main
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.submission.reader import Submission
from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import RecipeError


def test_one_command_gives_a_submission_that_is_complete_consistent_and_recorded(place, store, capsys) -> None:
    before = runs(store)
    assert run() == 0
    assert "no fault" in capsys.readouterr().out
    with Submission.open(Path("build/small/submission.zip")) as submission:
        assert submission.crops == ("crop1", "crop2")
        assert all(submission.names(crop) == tuple(sorted(ALL)) for crop in submission.crops)
        mito = submission.array("crop1", "mito")
        assert mito.attributes["translation"] == [22.0, 82.0, 82.0]
        assert mito.attributes["voxel_size"] == [4.0, 4.0, 4.0]
        whole = tuple(slice(0, n) for n in mito.shape)
        assert submission.read("crop1", "mito", whole).any()
        assert set(submission.attributes["unclaimed"]["crop1"]) == set(EMPTY)
    lock, _ = yamlfile.load_yaml(Path("build/small/lock.yaml"), RecipeError)
    assert {name: model["version"] for name, model in lock["models"].items()} == {"fine": 1, "coarse": 1}
    assert "EM upsampled" in lock["models"]["fine"]["em"]["d"]
    assert "EM downsampled" in lock["models"]["coarse"]["em"]["d"]
    assert runs(store) == before + 1
    assert run() == 0  # all is done: nothing happens
    assert runs(store) == before + 1


def test_the_plan_says_what_the_build_does_and_reads_no_voxel(place, capsys) -> None:
    for chunk in (place / "data/d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("[0-9]*"):
        chunk.write_bytes(b"not a chunk")
    assert main(["plan", "small.yaml", "--manifest", "manifest.csv", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    jobs = {(job["source"], crop): job for crop in plan["crops"] for job in plan["crops"][crop]["jobs"]}
    assert set(jobs) == {("fine", "1"), ("fine", "2"), ("coarse", "1"), ("coarse", "2")}
    assert jobs["fine", "1"]["em"] == "EM upsampled"
    assert jobs["fine", "1"]["forward_passes"] == jobs["fine", "1"]["patches"] > 1
    assert plan["crops"]["1"]["classes"]["mito"]["postprocess"][1] == {"drop_small": {"min_size_voxels": 20}}
    assert plan["cost"]["arrays"] == 96
    assert main(["plan", "small.yaml", "--manifest", "manifest.csv"]) == 0
    assert "mean(3·fine, 1·coarse)" in capsys.readouterr().out


def test_another_threshold_runs_no_network_again(place) -> None:
    assert run() == 0
    kept, first = predictions(place), Path("build/small/submission.zip").read_bytes()
    Path("small.yaml").write_text(RECIPE.replace("threshold: 0.5", "threshold: 0.45"))
    assert run() == 0
    assert predictions(place) == kept
    assert Path("build/small/submission.zip").read_bytes() != first
    Path("small.yaml").write_text(RECIPE)
    assert run() == 0
    assert Path("build/small/submission.zip").read_bytes() == first


def test_other_em_runs_the_networks_again(place) -> None:
    assert run() == 0
    kept = predictions(place)
    em = Grid((40, 48, 56), (8, 8, 8), (4, 4, 4))
    write_em(place / "data", "d", [(noise(em.shape, seed=1), em)])
    assert run() == 0
    assert len(predictions(place)) > len(kept)


def test_labels_of_an_earlier_submission_are_a_source_and_keep_their_ids(place) -> None:
    assert run() == 0
    Path("again.yaml").write_text(
        "name: again\nsources: {old: {labels: build/small/submission.zip}}\n"
        "classes: {mito: {source: old, postprocess: [keep_ids]}, nuc: {source: old}, ecs: {source: old}}\n"
        "defaults: {source: empty}\nconsistency: none\n"
    )
    assert main(["build", "again.yaml", *BUILD[2:]]) == 0
    with (
        Submission.open(Path("build/small/submission.zip")) as old,
        Submission.open(Path("build/again/submission.zip")) as new,
    ):
        for crop in old.crops:
            whole = tuple(slice(0, n) for n in old.array(crop, "mito").shape)
            for name in ("nuc", "ecs"):
                assert np.array_equal(old.read(crop, name, whole) > 0, new.read(crop, name, whole) > 0)
            a, b = old.read(crop, "mito", whole), new.read(crop, "mito", whole)
            pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
            assert len(np.unique(pairs[1])) == pairs.shape[1]  # no two old objects share a new id


def test_a_moved_alias_is_told_and_the_lock_obeyed_until_told_otherwise(place, store, capsys) -> None:
    assert run() == 0
    first = Path("build/small/submission.zip").read_bytes()
    moved = store.register(checkpoint(place / "b.pt", 2, 3), card("coarse", ("nuc", "mito"), 16), alias="champion")
    try:
        Path("build/small/submission.zip").unlink()
        assert run() == 0
        assert f"now means version {moved.version}; this build keeps version 1" in capsys.readouterr().err
        assert Path("build/small/submission.zip").read_bytes() == first
        assert run("--update-lock") == 0
        assert Path("build/small/submission.zip").read_bytes() != first
    finally:
        store.set_alias("coarse", "champion", 1, "back")


@pytest.mark.parametrize("moment", ["work/predictions/*.zarr/*.*.*.*", "work/submission.zarr/crop1/*/0.0.0"])
def test_killed_and_started_again_the_zip_is_the_same(place, moment: str) -> None:
    assert run("--out", "undisturbed") == 0
    process = start()
    wait_for(moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("build/small/submission.zip").exists()
    assert run() == 0
    assert Path("build/small/submission.zip").read_bytes() == Path("undisturbed/submission.zip").read_bytes()


def test_ctrl_c_is_one_line_and_leaves_no_zip(place) -> None:
    process = start()
    wait_for("work/predictions/*.zarr/*.*.*.*", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in errors
    assert "Traceback" not in errors
    assert not Path("build/small/submission.zip").exists()


def test_two_builds_in_one_place_do_not_harm_each_other(place, capsys) -> None:
    process = start()
    wait_for("work/lock", process)
    time.sleep(0.3)
    if process.poll() is None:
        assert "another build is at work here" in wrong(capsys, *BUILD)
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_a_full_disk_is_one_line_and_an_older_zip_stays(place) -> None:
    Path("build/small").mkdir(parents=True)
    Path("build/small/submission.zip").write_bytes(b"older")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start(preexec_fn=small_files)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "the disk is full" in errors
    assert "Traceback" not in errors
    assert Path("build/small/submission.zip").read_bytes() == b"older"


def test_wrong_input_is_one_line_that_says_what_to_do(place, capsys) -> None:
    edit("small.yaml", "source: coarse,", "source: fine,")
    line = wrong(capsys, *BUILD)
    assert "small.yaml:11: classes.nuc.source: nuc is routed to fine, which predicts only mito" in line
    Path("small.yaml").write_text(RECIPE.replace("models:/coarse@", "models:/corse@"))
    assert "small.yaml:4: sources.coarse" in wrong(capsys, *BUILD)
    assert "did you mean 'coarse'?" in wrong(capsys, *BUILD)
    Path("small.yaml").write_text(RECIPE)
    assert "there is no such recipe" in wrong(capsys, "build", "smal.yaml")
    edit("manifest.csv", "class_label", "class")
    assert "manifest.csv:1: the manifest lacks the column 'class_label'" in wrong(capsys, *BUILD)


def test_a_crop_outside_the_em_and_em_that_is_missing(place, capsys) -> None:
    text = Path("manifest.csv").read_text()
    Path("manifest.csv").write_text(text.replace("[22.0;82.0;82.0]", "[9022.0;82.0;82.0]"))
    assert "lies outside the EM" in wrong(capsys, *BUILD)
    Path("manifest.csv").write_text(text.replace(",d,", ",elsewhere,"))
    assert "elsewhere.zarr/recon-1/em/fibsem-uint8: there is no such array" in wrong(capsys, *BUILD)


def test_a_truncated_chunk_of_em_and_one_of_predictions(place, capsys) -> None:
    chunk = next((place / "data/d/d.zarr/recon-1/em/fibsem-uint8/s0").glob("1.1.1"))
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:30])
    assert "chunk 1.1.1 cannot be read" in wrong(capsys, *BUILD)
    chunk.write_bytes(whole)
    theirs = place / "data/theirs/d.zarr/crop2/ecs/0.0.0"
    theirs.write_bytes(theirs.read_bytes()[:30])
    assert "crop2/ecs: chunk 0.0.0 cannot be read" in wrong(capsys, *BUILD)


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "voxels are NaN"), (3.0, "values run from"), (-0.1, "values run from")]
)
def test_predictions_that_are_no_probabilities(place, capsys, value: float, says: str) -> None:
    grid = Grid((16, 12, 14), (8, 8, 8), (36, 36, 36))
    p = np.full(grid.shape, 0.5, np.float32)
    p[3, 3, 3] = value
    write_array(place / "data/theirs/d.zarr/crop2/ecs", p, grid)
    assert says in wrong(capsys, *BUILD)


def test_predictions_that_do_not_cover_the_crop_or_cannot_be_placed(place, capsys) -> None:
    grid = Grid((16, 12, 9), (8, 8, 8), (36, 36, 36))
    folder = write_array(place / "data/theirs/d.zarr/crop2/ecs", np.zeros(grid.shape, np.float32), grid)
    assert "short of crop 2 along x" in wrong(capsys, *BUILD)
    (folder / ".zattrs").write_text("{}")
    assert "lack voxel_size and translation" in wrong(capsys, *BUILD)


def test_scores_on_crops_that_a_model_was_trained_on_are_flagged(place, store, capsys) -> None:
    coarse = checkpoint(place / "c.pt", 2, 5)
    seen = card("seen", ("nuc", "mito"), 16).model_copy(update={"trained_on": ("2",)})
    store.register(coarse, seen, alias="champion")
    recipe = "name: seen\nsources: {m: {model: 'models:/seen@champion'}}\ndefaults: {source: m}\n"
    (place / "seen.yaml").write_text(recipe)
    assert main(["build", "seen.yaml", "--manifest", "manifest.csv", "--classes", "nuc"]) == 0
    for target in manifest.load_manifest(Path("manifest.csv")):
        truth = np.ones(target.grid.shape, np.uint8)
        write_array(place / "truth.zarr" / target.group / "nuc", truth, target.grid)
    capsys.readouterr()
    scored = ["score", "build/seen/submission.zip", "--truth", "truth.zarr", "--manifest", "manifest.csv"]
    assert main([*scored, "--json", "s.json"]) == 0
    said = capsys.readouterr().out
    assert "leakage: m was trained on crop2" in said
    assert "crop1" not in said.partition("leakage")[2].splitlines()[0]
    assert json.loads(Path("s.json").read_text())["trained_on"] == {"crop2": ["m"]}
