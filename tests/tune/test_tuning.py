"""Tuning finds the routes and thresholds that are known to be best, by gains that held-out truth confirms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from ensemble.build.building import build
from ensemble.cli import main
from ensemble.core import manifest
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.request import Request
from ensemble.scoring.evaluation import score
from ensemble.support.errors import EnsembleError, RegistryError
from ensemble.tune.tuning import TuningTask, tune
from registry.store import Registry
from tests.support.dask_cluster import WITH_GPU, cluster
from tests.support.networks_small import card, unet
from tests.support.small_tuning import RECIPE, TUNE, tuned


def test_the_known_best_routes_and_thresholds_are_found(tuned_place):
    found = json.loads(Path("tuned.json").read_text())
    assert found["classes"]["mito"]["route"]["source"] == "a"
    assert found["classes"]["nuc"]["route"]["source"] == "b"
    er = found["classes"]["er"]["route"]
    assert er["source"] == "a"
    truth, p = (zarr.open_array(f)[:] for f in ("truth.zarr/crop5/er", "data/a/crop5/er"))
    best = max(_iou(p > t, truth > 0) for t in np.linspace(0.5, 0.995, 100))
    assert er["threshold"] > 0.7  # the offset is undone
    assert _iou(p > er["threshold"], truth > 0) == pytest.approx(best, abs=0.005)
    assert found["overall"]["after"] > found["overall"]["before"] + 0.1
    assert "overall score" in Path("said").read_text()
    text = Path("tuned.yaml").read_text()
    assert "# er: official score of the class 0." in text
    assert "next best:" in text
    assert Path("tuned_curves/er.png").stat().st_size > 5000
    _check_runs()


def _iou(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


def _check_runs() -> None:
    import mlflow

    client = mlflow.MlflowClient(Registry().tracking_uri)
    experiment = client.get_experiment_by_name("ensemble tunings")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == ["er", "mito", "nuc"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        *("tuned.yaml", "tuned.json", "tuned_curves"),
    }


def test_building_the_tuned_recipe_gives_exactly_what_was_promised(tuned_place):
    promised = json.loads(Path("tuned.json").read_text())
    request = Request("tuned.yaml", tuned_place / "again", tuned_place / "manifest.csv", str(tuned_place / "data"))
    build(request, Registry())
    again = score(request.zip, tuned_place / "truth.zarr", manifest.load_manifest(tuned_place / "manifest.csv"))
    assert again.overall.score == promised["overall"]["after"]
    for name, one in promised["classes"].items():
        assert again.by_class[name] == one["official_after"]


def test_labels_are_a_source_like_any_other_also_where_nothing_can_be_recorded(place, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RegistryError("the model registry cannot be written")

    monkeypatch.setattr("registry.runs.Runs.record", refuse)
    sources = RECIPE.partition("defaults")[0] + '  lab: {labels: "{root}/../truth.zarr/{crop}/{class}"}\n'
    fixed = "tune: {mito: fixed, nuc: fixed}\n"
    Path("mine.yaml").write_text(sources + "defaults: {source: a}\nclasses: {er: {source: lab}}\n" + fixed)
    assert tuned("--trials", "2")["classes"]["er"]["official_after"] == 1.0
    said = capsys.readouterr()
    assert "not recorded: the model registry cannot be written" in said.err
    assert "recipe: tuned.yaml   not recorded" in said.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "mine.yaml"], "would replace the recipe"),
        (["--out", "hand.yaml"], "would replace a recipe that no tuning wrote"),
        (["--out", "tuned.json"], "let its name end in .yaml"),
        (["--truth", "none.zarr"], "holds truth for no array of the manifest"),
        *(([f"--trials={n}"], f"--trials {n}: say a number from 1") for n in (0, -1, 10**9)),
        *(([f"--minutes={m}"], "--minutes") for m in ("nan", "inf", "-1", "1e999")),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_predicted(place, capsys, options, message):
    before = Path("mine.yaml").read_text()
    Path("hand.yaml").write_text(before)
    assert main([*TUNE, *options]) == 2
    assert Path("hand.yaml").read_text() == before
    assert message in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == before
    assert not Path("tuned.yaml").exists()


def test_classes_decided_together_are_tuned_together(place):
    """The er of a is too sure of itself; decided together with nuc it takes what is nuc's until its route is mended."""
    Path("mine.yaml").write_text(RECIPE.replace("consistency: none", "consistency: joint\ntune: {mito: fixed}"))
    found = tuned("--trials", "2")
    assert found["overall"]["after"] > found["overall"]["before"] + 0.1
    assert recipe_file.load_recipe("tuned.yaml").consistency in ("joint", "none")


def test_what_a_model_was_trained_on_is_not_tuned_by(place, both_versions):
    Path("mine.yaml").write_text("name: mine\nsources: {m: {model: 'models:/m/1'}}\ndefaults: {source: m}\n")
    Path("manifest.csv").write_text(Path("manifest.csv").read_text().replace("\n5,", "\n7,"))
    (place / "truth.zarr/crop5").rename(place / "truth.zarr/crop7")
    request = Request("mine.yaml", place / "work", place / "manifest.csv", str(place / "data"), classes=["mito"])
    task = TuningTask(request, place / "truth.zarr", place / "tuned.yaml", augment=False)
    with pytest.raises(EnsembleError, match="was trained on"):
        tune(task, Registry())
    assert not Path("tuned.yaml").exists()


def test_once_the_minutes_are_over_only_what_the_recipe_needs_is_predicted(place, own_versions, capsys):
    torch.save(unet(3).state_dict(), "c.pt")
    own_versions.register(Path("c.pt"), card(name="quick", voxel_size_nm=8, overlap=0))
    sources = "sources: {m: {model: 'models:/quick/1'}}\ndefaults: {source: m}\n"
    Path("mine.yaml").write_text(f"name: mine\n{sources}empty: [nuc, er]\nconsistency: none\n")
    assert main([*TUNE, "--minutes", "0", "--trials", "1", "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "--minutes 0 are over: left out for lack of time: m_mirrored" in said
    assert len(list(Path("build/predictions").glob("*.zarr"))) == 1
    assert not Path("build/mine-tune/work/surveyed.json").exists()
    assert main(["clean", "build/mine-tune"]) == 0
    assert len(list(Path("build/predictions").glob("*.zarr"))) == 1


@pytest.mark.slow
def test_by_the_workers_of_a_cluster_the_same_recipe_is_found(place, own_versions, tmp_path_factory):
    torch.save(unet(3).state_dict(), "c.pt")
    own_versions.register(Path("c.pt"), card(name="quick", voxel_size_nm=8, overlap=0))
    model = RECIPE.replace("defaults:", "  m: {model: 'models:/quick/1'}\ndefaults:")
    Path("mine.yaml").write_text(model)
    found = {}
    with cluster(tmp_path_factory.mktemp("cluster"), WITH_GPU, WITH_GPU) as made:
        for name, options in (("here", []), ("there", ["--engine", str(made.file)])):
            tuned("--data", "data", "--device", "cpu", "--cache", f"{name}-cache", *options)
            found[name] = json.loads(Path("tuned.json").read_text())
            assert list(Path(f"{name}-cache").glob("*.zarr"))
            for written in Path().glob("tuned*"):
                written.rename(f"{name}-{written.name}")
    assert found["here"]["classes"] == found["there"]["classes"]
    assert found["here"]["overall"] == found["there"]["overall"]


def test_a_folder_that_holds_anothers_submission_is_refused_before_anything_runs(place, capsys):
    assert main(["build", "mine.yaml", "--manifest", "manifest.csv"]) == 0
    whole = Path("build/mine/submission.zip").read_bytes()
    assert main([*TUNE, "--work", "build/mine"]) == 2
    assert "build/mine/submission.zip: was made from mine.yaml, another recipe" in capsys.readouterr().err
    assert Path("build/mine/submission.zip").read_bytes() == whole
