"""Building for real: registered checkpoints, EM on disk, one command, one zip."""

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.build import building
from ensemble.build.building import build
from ensemble.cli import main
from ensemble.core.box import Box
from ensemble.plan.request import Request
from ensemble.submission.reader import Submission
from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import RecipeError
from registry.store import Registry
from tests.support.built import OUT, begun_anew
from tests.support.processes import go_on
from tests.support.small_build import ALL, BUILD, EMPTY, RECIPE, edit, predictions, run, runs, start


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
        assert submission.read("crop1", "mito", Box.of_shape(mito.shape)).any()
        assert set(submission.attributes["unclaimed"]["crop1"]) == set(EMPTY)
    lock, _ = yamlfile.load_yaml(Path("build/small/lock.yaml"), RecipeError)
    assert {name: model["version"] for name, model in lock["models"].items()} == {"fine": 1, "coarse": 1}
    assert "EM upsampled" in lock["models"]["fine"]["em"]["d"]
    assert "EM downsampled" in lock["models"]["coarse"]["em"]["d"]
    assert runs(store) == before + 1
    assert run() == 0  # all is done: nothing happens
    assert runs(store) == before + 1


def test_another_threshold_runs_no_network_again(built) -> None:
    kept, first = predictions(built), Path("build/small/submission.zip").read_bytes()
    Path("small.yaml").write_text(RECIPE.replace("threshold: 0.5", "threshold: 0.45"))
    assert run() == 0
    assert predictions(built) == kept
    assert Path("build/small/submission.zip").read_bytes() != first
    Path("small.yaml").write_text(RECIPE)
    assert run() == 0
    assert Path("build/small/submission.zip").read_bytes() == first


def test_labels_of_an_earlier_submission_are_a_source_and_keep_their_ids(built) -> None:
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
            whole = Box.of_shape(old.array(crop, "mito").shape)
            for name in ("nuc", "ecs"):
                assert np.array_equal(old.read(crop, name, whole) > 0, new.read(crop, name, whole) > 0)
            a, b = old.read(crop, "mito", whole), new.read(crop, "mito", whole)
            pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
            assert len(np.unique(pairs[1])) == pairs.shape[1]  # no two old objects share a new id


def test_killed_while_it_predicts_a_build_goes_on_to_the_same_zip(built) -> None:
    whole = begun_anew()
    go_on(start(stop_at="predictions/*.zarr/*.*.*.*[0-9]", number=2), signal.SIGKILL)
    assert not (OUT / "submission.zip").exists()
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == whole


def test_killed_while_it_assembles_a_build_goes_on_from_its_last_block(built) -> None:
    whole = begun_anew()
    go_on(start(stop_at="work/scratch/1/*/written/crop1/*/0.0.0", number=2), signal.SIGKILL)
    assert not (OUT / "submission.zip").exists()
    assert list(OUT.glob("work/scratch/1/journal"))
    kept = predictions(built)
    assert run() == 0
    assert predictions(built) == kept
    assert (OUT / "submission.zip").read_bytes() == whole


def test_a_bit_that_flips_in_what_a_build_goes_on_from_is_told_and_that_made_anew(built, capsys) -> None:
    whole = begun_anew()
    go_on(start(stop_at="work/scratch/1/*/written/crop1/*/0.0.0", number=2), signal.SIGKILL)
    chunks = [path for path in OUT.glob("work/scratch/1/*/*/*.*.*") if path.is_file()]
    assert chunks
    for chunk in chunks:
        data = bytearray(chunk.read_bytes())
        data[-1] ^= 1
        chunk.write_bytes(data)
    capsys.readouterr()
    assert run() == 2
    assert "run the same command again to assemble it anew" in " ".join(capsys.readouterr().err.split())
    assert not (OUT / "submission.zip").exists()
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == whole


def test_ctrl_c_is_one_line_and_leaves_no_zip(place) -> None:
    process = start(stop_at="predictions/*.zarr/*.*.*.*[0-9]", number=2)
    errors = go_on(process, signal.SIGINT)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in errors
    assert "Traceback" not in errors
    assert not (OUT / "submission.zip").exists()


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_is_one_line_and_an_older_zip_stays(built) -> None:
    older = (OUT / "submission.zip").read_bytes()
    edit("small.yaml", "nuc: {source: coarse,", "nuc: {source: coarse, threshold: 0.45,")
    process = start(before=_small_files)
    _, errors = process.ended()
    assert process.returncode == 2
    assert "the disk is full" in errors
    assert "Traceback" not in errors
    assert (OUT / "submission.zip").read_bytes() == older


def test_alone_another_threshold_reruns_its_own_class_only(built) -> None:
    edit("small.yaml", "consistency: joint", "consistency: none")
    assert run() == 0

    def written() -> dict[str, int]:
        arrays = OUT.glob("work/submission.zarr/crop*/*/.zarray")
        return {f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns for path in arrays}

    before = written()
    edit("small.yaml", "nuc: {source: coarse,", "nuc: {source: coarse, threshold: 0.45,")
    assert run() == 0
    after = written()
    assert {name for name in before if after[name] != before[name]} == {"crop1/nuc", "crop2/nuc"}


@pytest.mark.parametrize("workers", ["1", "3"])
def test_any_number_of_workers_gives_the_same_bytes(built, workers: str) -> None:
    whole = begun_anew()
    assert run("--workers", workers) == 0
    assert (OUT / "submission.zip").read_bytes() == whole


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu,cpu"])
def test_any_number_of_devices_gives_the_same_bytes(built, devices: str) -> None:
    whole = begun_anew()
    assert main([*BUILD[:-2], "--device", devices]) == 0
    assert (OUT / "submission.zip").read_bytes() == whole


def test_a_build_of_some_crops_and_classes_holds_these_alone_and_says_what_it_found(place) -> None:
    only = {"crops": ["2"], "classes": ["mito", "ecs", "nuc"]}
    request = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu", **only)
    made = build(request, Registry())
    assert made.report.ok
    assert list(made.report.arrays) == ["crop2"]
    assert set(made.report.arrays["crop2"]) == {"mito", "ecs", "nuc"}
    with Submission.open(request.zip) as submission:
        assert submission.crops == ("crop2",)
        assert submission.attributes["consistency"] == "joint"


def test_an_array_that_the_check_finds_damaged_is_made_anew_by_the_next_build(built, monkeypatch, capsys) -> None:
    whole = begun_anew()
    fault = "crop1/mito: made up by this test"
    with monkeypatch.context() as patched:
        found = building.check
        patched.setattr(building, "check", lambda *given: replace(found(*given), faults=(fault,)))
        assert run() == 1
    assert fault in capsys.readouterr().out
    kept = (OUT / "work/assembled/2.json").stat().st_mtime_ns
    assert run() == 0
    assert "everything is done already" not in capsys.readouterr().err
    assert (OUT / "work/assembled/2.json").stat().st_mtime_ns == kept
    costs = json.loads((OUT / "costs.json").read_text())
    assert costs["groups_kept"] == costs["groups"] // 2  # those of the other crop
    assert (OUT / "submission.zip").read_bytes() == whole


def test_what_an_older_zip_had_beside_it_stays_until_there_is_a_newer(built) -> None:
    pages = [OUT / name for name in ("report.html", "report.json")]
    before = [page.read_bytes() for page in pages]
    edit("small.yaml", "nuc: {source: coarse,", "nuc: {source: coarse, threshold: 0.45,")
    go_on(start(stop_at="work/scratch/1/journal"), signal.SIGKILL)
    assert [page.read_bytes() for page in pages] == before
