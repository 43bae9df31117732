"""The report of a build: the page that is written, with and without what it is made of."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ensemble.cli import main
from ensemble.report.report import make_report
from ensemble.support.files import read_sealed, write_sealed
from tests.support.built import OUT, STORE
from tests.support.small_build import BUILD, edit


def test_a_recipe_that_changed_since_the_build_is_not_shown_as_what_was_built(built, capsys):
    edit("small.yaml", "threshold: 0.5", "threshold: 0.6")
    request = read_sealed(OUT / "work" / "request.json")
    write_sealed(OUT / "work" / "request.json", {**request, "recipe": str(Path("small.yaml").resolve())})
    assert main(["report", str(OUT)]) == 0
    assert "recipe or manifest have changed since the build (crop 1); build again" in capsys.readouterr().err
    assert "Without probabilities" in (OUT / "report.html").read_text()


def test_a_damaged_array_is_a_fault_on_the_page_not_the_end_of_it(built, capsys):
    zipped = OUT / "submission.zip"
    with zipfile.ZipFile(zipped) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    chunk = next(name for name in members if name.startswith("crop1/ecs/0"))
    with zipfile.ZipFile(zipped, "w") as spoilt:
        for name, data in members.items():
            spoilt.writestr(name, data[:-1] + b"?" if name == chunk else data)
    stamp = {"bytes": zipped.stat().st_size, "mtime_ns": zipped.stat().st_mtime_ns}
    state = OUT / "work" / "state.json"
    write_sealed(state, {**read_sealed(state), "zip": stamp})
    for name in ("report.html", "check.json"):
        (OUT / name).unlink()
    assert main(BUILD) == 1
    assert "crop1/ecs: chunk" in capsys.readouterr().out
    assert "NOT ready: 1 fault to mend" in (OUT / "report.html").read_text()


@pytest.mark.parametrize("text", ["{", '{"faults": []}'])
def test_a_damaged_check_is_one_line_and_made_anew_by_the_next_build(built, capsys, text):
    known = (OUT / "check.json").read_text()
    (OUT / "check.json").write_text(text)
    assert main(["report", str(OUT)]) == 2
    assert str(OUT) in capsys.readouterr().err
    assert main(BUILD) == 0
    assert (OUT / "check.json").read_text() == known


@pytest.mark.parametrize("state", [[1], {"run_id": 5}, {}])
def test_a_report_needs_no_run(built, state):
    write_sealed(OUT / "work" / "state.json", state)
    assert main(["report", str(OUT)]) == 0


def test_truth_adds_scores_and_the_page_opens_from_disk_alone(built, store, capsys):
    assert main(["report", str(OUT), "--truth", "truth.zarr"]) == 0
    text = (OUT / "report.html").read_text()
    scores = json.loads((OUT / "scores.json").read_text())
    assert f"Overall score {scores['overall_score']:.4f}" in text
    run = MlflowClient(store.tracking_uri).get_run(read_sealed(OUT / "work" / "state.json")["run_id"])
    assert run.data.metrics["overall_score"] == scores["overall_score"]
    logged = MlflowClient(store.tracking_uri).download_artifacts(run.info.run_id, "report.html")
    assert Path(logged).read_text() == text
    assert "<strong>worst</strong> crop" in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)  # nothing is fetched
    assert "report.json" in capsys.readouterr().out
    # without the models the page is made all the same
    shutil.rmtree("build/small/work")
    assert main(["report", str(OUT)]) == 0
    assert "without probabilities" in capsys.readouterr().err


def test_predictions_that_were_cleaned_away_are_not_shown_as_zeros(built, capsys):
    shutil.rmtree(STORE)
    assert main(["report", str(OUT)]) == 0
    assert "is not there any more; build again" in capsys.readouterr().err
    assert "Without probabilities" in (OUT / "report.html").read_text()
    assert '"probability"' not in (OUT / "report.html").read_text().partition("data-pictures=")[2]
    assert not STORE.exists()


def test_em_that_is_not_there_any_more_is_told_on_the_page(built):
    request = read_sealed(OUT / "work" / "request.json")
    write_sealed(OUT / "work" / "request.json", {**request, "data_root": f"{request['data_root']}/elsewhere"})
    assert main(["report", str(OUT)]) == 0
    assert "Without EM of d: it is not under" in (OUT / "report.html").read_text()


def test_a_report_that_is_made_again_says_its_scores_and_counts_its_own_cost_once(built, store):
    scores = make_report(OUT, store, truth=Path("truth.zarr"))
    assert scores.overall.score == json.loads((OUT / "scores.json").read_text())["overall_score"]
    make_report(OUT, store)
    stages = [stage["stage"] for stage in json.loads((OUT / "costs.json").read_text())["stages"]]
    assert stages.count("report") == 1
    assert stages[0] == "predict"
