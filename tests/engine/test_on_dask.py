"""A cluster's workers as an engine: what is killed is begun again, who is unlike the driver is sent away."""

import os
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from ensemble.engine import admission
from ensemble.engine.on_dask import MOST_TRIES, OnDask
from ensemble.engine.task import Task
from ensemble.support import EnsembleError, VolumeError
from tests.support.dask_cluster import PLAIN, WITH_GPU, cluster, until

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers, one of which has a GPU, as it says."""
    with cluster(tmp_path_factory.mktemp("cluster"), PLAIN, WITH_GPU) as made:
        with distributed.Client(scheduler_file=str(made.file)) as client:
            client.wait_for_workers(2)
        yield str(made.file)


def test_tasks_are_done_by_workers_and_networks_run_where_the_gpu_is(address: str) -> None:
    with OnDask(address) as engine:
        assert (engine.at_once, engine.devices) == (2, 1)
        for number in range(4):
            engine.submit(Task("tests.engine.jobs:who", (), f"who {number}", on_gpu=True))
        with_gpu = {engine.finished().result()[0] for _ in range(4)}
        assert len(with_gpu) == 1
        assert os.getpid() not in with_gpu
        assert engine.ask("math:hypot", 3, 4) == 5


def test_what_is_raised_comes_back(address: str) -> None:
    with OnDask(address) as engine:
        engine.submit(Task("tests.engine.jobs:fails", ("/a/place: is broken",), "fails"))
        with pytest.raises(VolumeError, match=r"^/a/place: is broken$"):
            engine.finished().result()


def test_news_are_heard_with_their_task(address: str) -> None:
    heard = []
    with OnDask(address, hear=lambda task, news: heard.append((task.key, news))) as engine:
        engine.submit(Task("tests.engine.jobs:tells_slowly", (1, 2), "telling"))
        engine.finished()
    assert ("telling", 1) in heard


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_is_begun_again_and_given_up_in_the_end(address: str, tmp_path) -> None:
    for name in ("some", "all"):
        (tmp_path / name).mkdir()
    said: list[str] = []
    with OnDask(address, say=said.append) as engine:
        engine.submit(Task("tests.engine.jobs:killed_at_first", (2, str(tmp_path / "some")), "some"))
        assert engine.finished().result() == 3
        engine.submit(Task("tests.engine.jobs:killed_at_first", (99, str(tmp_path / "all")), "all", what="the work"))
        with pytest.raises(EnsembleError, match="the work: workers ended under it, one after the other, the last at"):
            engine.finished().result()
    assert sum("begun again" in line for line in said) == MOST_TRIES - 1


@pytest.mark.slow
def test_a_worker_with_other_code_is_sent_away_as_soon_as_it_joins(address: str) -> None:
    said: list[str] = []
    expected = {**admission.made_by(), "the code of registry": "another"}
    with (
        patch("ensemble.engine.admission.made_by", lambda: expected),
        patch.object(OnDask, "_wait_for_workers"),
        OnDask(address, say=said.append) as engine,
    ):
        until(lambda: not engine._workers() and len({line.split()[1] for line in said}) >= 2)
    for line in said:
        assert "is sent away: the code of registry is " in line
        assert "not another; install the driver's versions there" in line


@pytest.mark.slow
def test_a_worker_with_another_device_is_sent_away_and_one_without_any_stays(tmp_path) -> None:
    said: list[str] = []
    with cluster(tmp_path, PLAIN, WITH_GPU) as made, OnDask(str(made.file), say=said.append) as engine:
        until(lambda: len(engine._workers()) == 2)
        engine._with_gpus = True
        engine.expect_device("math:hypot", 3, 4, answer="an H100")
        until(lambda: len(engine._workers()) == 1 and said)
        assert "GPU" not in next(iter(engine._workers().values()))["resources"]
    assert "is sent away: its device is 5.0, that of the others an H100" in said[-1]


@pytest.mark.parametrize(
    ("address", "fault"),
    [("nowhere.json", "there is no such file; start one with"), ("tcp://127.0.0.1:9", "no scheduler answers")],
)
def test_where_no_scheduler_is_that_is_one_line(address: str, fault: str) -> None:
    with patch("ensemble.engine.on_dask._CONNECTING_S", 1), pytest.raises(EnsembleError, match=fault) as error:
        OnDask(address).__enter__()
    assert "\n" not in str(error.value)
