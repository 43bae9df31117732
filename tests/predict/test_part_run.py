"""A part of a job, computed by whoever can: what one that ended wrote stays, and the next goes on."""

import pickle
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from ensemble.core.manifest import Target
from ensemble.engine.task import heard_by
from ensemble.plan.network_use import plain_use
from ensemble.plan.parts import parts_of
from ensemble.predict.job_work import JobPlace, PartTask
from ensemble.predict.part_run import predict_part, sit_down
from ensemble.predict.prediction_store import open_prediction
from ensemble.predict.tissues import tissue_of
from ensemble.support.errors import EnsembleError
from tests.support.inference import CLASSES, a_volume, card, job, tiny_network


@pytest.fixture
def task(tmp_path) -> PartTask:
    """The second of two parts along z."""
    _, grid, em = a_volume(tmp_path, (96, 40, 40))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    folder = tmp_path / "predictions"
    use, part = plain_use(one, "32", "cpu"), parts_of(one, slabs=2)[1]
    open_prediction(folder, "key-all", one)
    place = JobPlace(tissue_of(em, one), folder, "key-all", folder, use, "cpu", 1, None)
    return PartTask(one, part, place, False, True)


def run(task: PartTask):
    sit_down(torch.device("cpu"))
    with patch("ensemble.predict.part_run.load_network", lambda card, weights: tiny_network()):
        return predict_part(pickle.loads(pickle.dumps(task)))


def values(task: PartTask) -> np.ndarray:
    return open_prediction(task.place.folder, task.place.key, task.job).array[:]


def test_what_a_worker_that_ended_wrote_stays_and_the_next_goes_on(task) -> None:
    whole = run(task)
    expected = values(task)
    assert expected.any()

    again = replace(task, place=replace(task.place, key="other-all"))
    open_prediction(again.place.folder, again.place.key, again.job)
    heard: list[int] = []

    def ends(passes: int) -> None:
        heard.append(passes)
        if passes >= 2 * whole.passes // 3:
            raise KeyboardInterrupt

    with heard_by(ends), pytest.raises(KeyboardInterrupt):
        run(again)
    rest = run(again)
    assert 0 < rest.passes < whole.passes
    assert np.array_equal(values(again), expected)
    assert heard == sorted(heard)


def test_of_a_part_that_a_worker_wrote_in_whole_before_it_ended_nothing_is_computed(task) -> None:
    run(task)
    expected = values(task)
    assert run(task).passes == 0
    assert np.array_equal(values(task), expected)


def test_who_opens_the_prediction_takes_over_what_parts_marked(task) -> None:
    run(task)
    assert list(task.place.folder.glob("*.section"))
    stored = open_prediction(task.place.folder, task.place.key, task.job)
    assert stored.done_planes(task.part.box) == task.part.box.shape[0]
    assert not stored.complete
    assert not list(task.place.folder.glob("*.section"))


def test_a_worker_of_another_kind_is_refused_in_one_line(task) -> None:
    with pytest.raises(EnsembleError, match="m is to run on cuda, but a worker has cpu; start workers of one kind"):
        run(replace(task, place=replace(task.place, device="cuda")))
