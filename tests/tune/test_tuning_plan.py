"""What a tuning would do is told before it begins, and nothing is done."""

from pathlib import Path

import pytest

from ensemble.cli import main
from ensemble.plan import Request
from ensemble.predict import pace
from ensemble.support import EnsembleError
from ensemble.tune.tuning import TuningTask
from ensemble.tune.tuning_plan import plan_tuning
from registry import Registry
from tests.support.small_tuning import TUNE

MODEL = "name: mine\nsources: {m: {model: 'models:/m/1'}}\ndefaults: {source: m}\nempty: [nuc, er]\n"


@pytest.fixture(autouse=True)
def _little_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "TIMED_S", 0.0)


def files(place: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}


def task(**changes) -> TuningTask:
    request = Request("mine.yaml", Path("build/mine-tune"), Path("manifest.csv"), device="cpu")
    return TuningTask(request, Path("truth.zarr"), Path("tuned.yaml"), **changes)


def test_candidates_passes_and_hours_are_told_and_nothing_is_done(place, both_versions, capsys) -> None:
    Path("mine.yaml").write_text(MODEL)
    before = files(place)
    assert main([*TUNE, "--plan", "--minutes", "90", "--trials", "3"]) == 0
    said = capsys.readouterr().out
    assert files(place) == before
    assert "m, m_mirrored" in said
    assert "predicting: 0 of 2 predictions found, 2 to compute, about " in said
    assert "nothing new is begun after 1 h 30 min (--minutes)" in said
    assert said.endswith("nothing was predicted or tried; without --plan it begins\n")


def test_a_plan_counts_what_is_tried(place, both_versions) -> None:
    Path("mine.yaml").write_text(MODEL)
    found = plan_tuning(task(trials=3), Registry())
    ((unit, space),) = found.units.items()
    assert found.candidates(unit) == ("m", "m_mirrored")
    assert {job.source for job in found.survey.jobs} == {"m", "m_mirrored"}
    voxels = 32 * 48 * 160
    assert found.evaluated_voxels == (1 + len(space.sources) + 3 * (3 + 6)) * voxels  # no mixes: pairs are of a kind
    assert found.predicting_s > 0


def test_stored_probabilities_alone_need_no_passes(place) -> None:
    found = plan_tuning(task(), Registry())
    assert (found.survey.jobs, found.predicting_s, found.skipped) == ((), 0, ())
    assert found.searching_s > 0


def test_what_tuning_would_refuse_its_plan_refuses(place, both_versions) -> None:
    Path("mine.yaml").write_text(MODEL)
    Path("manifest.csv").write_text(Path("manifest.csv").read_text().replace("\n5,", "\n7,"))
    (place / "truth.zarr/crop5").rename(place / "truth.zarr/crop7")
    with pytest.raises(EnsembleError, match="was trained on"):
        plan_tuning(task(), Registry())
    assert plan_tuning(task(force=True), Registry()).units
