"""This machine as an engine: processes, threads, devices; and what is killed is begun again."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ensemble.engine.here import MOST_TRIES, Here
from ensemble.engine.task import Task
from ensemble.support import EnsembleError, VolumeError
from tests.support.dask_cluster import until
from tests.support.processes import ROOT

WHO = "tests.engine.jobs:who"


def tasks(count: int, function: str = WHO, *, on_gpu: bool = False) -> list[Task]:
    return [Task(function, (), f"{function} {number}", on_gpu) for number in range(count)]


def results(engine: Here, some: list[Task]) -> list:
    for task in some:
        engine.submit(task)
    return [engine.finished().result() for _ in some]


def test_one_worker_is_the_thread_that_asks() -> None:
    with Here() as engine:
        assert set(results(engine, tasks(3))) == {(os.getpid(), threading.get_ident())}


def test_several_are_threads_or_processes_as_is_asked() -> None:
    with Here(2) as engine:
        threads = results(engine, tasks(4))
    assert {process for process, _ in threads} == {os.getpid()}
    assert threading.get_ident() not in {thread for _, thread in threads}
    with Here(2, in_processes=True) as engine:
        processes = {process for process, _ in results(engine, tasks(4))}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2


@pytest.mark.parametrize("count", [1, 2])
def test_networks_run_on_devices_of_this_process(count: int) -> None:
    sat: dict[int, str] = {}

    def sit_down(device: str) -> None:
        sat[threading.get_ident()] = device

    with Here(2, in_processes=True, devices=["a", "b"][:count], sit_down=sit_down) as engine:
        ran = results(engine, tasks(4, on_gpu=True))
    assert {process for process, _ in ran} == {os.getpid()}
    assert {thread for _, thread in ran} <= sat.keys()
    assert sorted(sat.values()) == ["a", "b"][:count]


@pytest.mark.parametrize(
    "engine", [Here(), Here(2), Here(2, in_processes=True)], ids=["thread", "threads", "processes"]
)
def test_what_is_raised_comes_back(engine: Here) -> None:
    with engine:
        engine.submit(Task("tests.engine.jobs:fails", ("/a/place: is broken",), "fails"))
        with pytest.raises(VolumeError, match=r"^/a/place: is broken$"):
            engine.finished().result()


def test_a_task_whose_process_is_killed_is_begun_again_and_given_up_in_the_end(tmp_path) -> None:
    for name in ("some", "all"):
        (tmp_path / name).mkdir()
    with Here(2, in_processes=True) as engine:
        engine.submit(Task("tests.engine.jobs:killed_at_first", (2, str(tmp_path / "some")), "some"))
        assert engine.finished().result() == 3
        engine.submit(Task("tests.engine.jobs:killed_at_first", (99, str(tmp_path / "all")), "all", what="the work"))
        with pytest.raises(EnsembleError, match=f"the work: the process at work on it ended {MOST_TRIES} times"):
            engine.finished().result()


def test_a_task_beside_one_that_ends_its_process_is_not_blamed_for_it(tmp_path) -> None:
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
    with Here(2, in_processes=True) as engine:
        engine.submit(Task("tests.engine.jobs:killed_at_first", (99, str(tmp_path / "bad")), "bad"))
        for number in range(5):
            engine.submit(
                Task("tests.engine.jobs:how_many_at_once", (str(tmp_path / "good"), number), f"good {number}")
            )
        ended = {finished.task.key: finished.error for finished in (engine.finished() for _ in range(6))}
    assert [key for key, error in ended.items() if error is not None] == ["bad"]


def test_news_are_heard_with_their_task() -> None:
    heard = []
    with Here(hear=lambda task, news: heard.append((task.key, news))) as engine:
        engine.submit(Task("tests.engine.jobs:tells", (1, 2), "telling"))
        engine.finished()
    assert heard == [("telling", 1), ("telling", 2)]


def test_where_one_fails_the_others_stop(tmp_path) -> None:
    both = [
        Task("tests.engine.jobs:goes_on_until_told", (str(tmp_path),), "goes on", on_gpu=True),
        Task("tests.engine.jobs:once_begun", (str(tmp_path), "broken"), "fails", on_gpu=True),
    ]
    with pytest.raises(VolumeError, match="broken"), Here(devices=["a", "b"]) as engine:
        results(engine, both)
    assert (tmp_path / "stopped").exists()


def test_a_script_without_a_guard_is_not_run_again_by_its_processes(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ensemble.engine import Here, Task\n"
        "print('once', flush=True)\n"
        "with Here(2, in_processes=True) as engine:\n"
        "    engine.submit(Task('math:hypot', (3, 4), 'key'))\n"
        "    print(engine.finished().result())\n"
        "print(__file__.endswith('script.py'))\n"
    )
    told = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert told.stdout.split() == ["once", "5.0", "True"], told.stderr


def test_tasks_are_at_work_together_only_as_far_as_memory_goes(tmp_path) -> None:
    function = "tests.engine.jobs:how_many_at_once"

    def most(memory_bytes: float) -> int:
        folder = tmp_path / str(memory_bytes)
        folder.mkdir()
        some = [Task(function, (str(folder), n), f"{n}", memory_bytes=3) for n in range(6)]
        with Here(3, memory_bytes=memory_bytes) as engine:
            return max(results(engine, some))

    assert most(2) == 1
    assert most(6) == 2
    assert most(100) == 3


def test_processes_end_with_a_driver_that_is_killed(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from ensemble.engine import Here, Task\n"
        "with Here(2, in_processes=True) as engine:\n"
        "    engine.submit(Task('os:getpid', (), 'first'))\n"
        "    print(engine.finished().result(), flush=True)\n"
        "    engine.submit(Task('time:sleep', (600,), 'second'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert told.returncode == -signal.SIGKILL
    worker = Path("/proc", told.stdout.decode().strip())
    until(lambda: not worker.exists())
