"""A plan's networks are run once over the crops that need them."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor, found_in_words
from ensemble.support.errors import EnsembleError
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.built import OUT, begun_anew
from tests.support.command import ensemble
from tests.support.small_build import BUILD, start


def predicting() -> tuple[Predictor, tuple]:
    request = Request.again(OUT)
    prepared = prepare(request, Registry())
    return Predictor.of(request, prepared, Registry(), QuietProgress()), prepared.plan.crops


def test_what_a_build_predicted_is_found_and_not_predicted_again(built) -> None:
    again, crops = predicting()
    again.run()
    assert (again.kept, again.passes) == (4, 0)  # two models on two crops
    for crop in crops:
        fields = again.fields(crop)
        assert set(fields) == {
            *(("mito", "fine"), ("mito", "coarse"), ("mito_mem", "fine"), ("mito_lum", "fine")),
            *(("nuc", "coarse"), ("ecs", "theirs")),
        }
        for field in fields.values():
            p = field.probability(crop.target.grid, "linear")
            assert p.shape == crop.target.grid.shape
            assert 0 <= p.min() < p.max() <= 1


def test_what_is_not_there_any_more_is_told_and_only_that_is_predicted(built) -> None:
    before, crops = predicting()
    mito = before.fields(crops[0])["mito", "fine"].probability(crops[0].target.grid, "linear")
    kept = before.stored(crops[0].jobs[0])
    kept.forget()
    with pytest.raises(EnsembleError, match="what fine predicted of crop 1 is not there any more; build again"):
        before.fields(crops[0])
    again, crops = predicting()
    again.run()
    assert (again.kept, again.passes) == (3, crops[0].jobs[0].forward_passes)
    assert np.array_equal(again.fields(crops[0])["mito", "fine"].probability(crops[0].target.grid, "linear"), mito)


def test_how_many_are_found_is_said_in_words(built) -> None:
    request = Request.again(OUT)
    prepared = prepare(request, Registry())
    predictor = Predictor.of(request, prepared, Registry(), QuietProgress())
    assert predictor.open_jobs == []
    predictor.stored(prepared.plan.jobs[0]).forget()
    assert predictor.open_jobs == [prepared.plan.jobs[0]]
    assert found_in_words(3, 5) == "3 of 5 predictions found, 2 to compute"
    assert found_in_words(5, 5) == "5 of 5 predictions found"


@pytest.mark.parametrize("first_dies", [False, True])
def test_of_two_builds_at_once_each_network_is_run_by_one_and_a_dead_ones_work_is_taken_over(
    built, first_dies: bool
) -> None:
    whole = begun_anew()
    first = start(stop_at="predictions/*.zarr/*.*.*.*[0-9]", number=2)
    second = ensemble(*BUILD, "--out", "build/second")
    said = iter(second.stderr.readline, "")
    assert any(
        "another process is predicting fine on crop 1 for the same store; waiting for it" in line for line in said
    )
    first.send(signal.SIGKILL if first_dies else signal.SIGCONT)
    first.ended()
    second.ended()
    assert Path("build/second/submission.zip").read_bytes() == whole
    if not first_dies:
        assert (OUT / "submission.zip").read_bytes() == whole
        costs = [json.loads(Path(out, "costs.json").read_text()) for out in (OUT, "build/second")]
        planned = json.loads((OUT / "plan.json").read_text())["cost"]["forward_passes"]
        assert sum(cost["forward_passes"] for cost in costs) == planned
        assert min(cost["forward_passes"] for cost in costs) > 0
