"""Workers that are killed while they predict, decide, find objects, write and count: the same bytes.

``WORKER_KILLS`` says how many are killed in all (``make test-kills``: 20 for each engine and number of workers).
"""

import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ensemble.build import building
from ensemble.build.building import build
from ensemble.decode import assembling
from ensemble.engine.here import Here
from ensemble.engine.on_dask import OnDask
from ensemble.engine.task import Task
from ensemble.plan.budget import Budget
from ensemble.plan.plan import Plan
from ensemble.plan.request import Request
from ensemble.plan.workers import Workers
from tests.support.built import OUT, begun_anew
from tests.support.dask_cluster import WITH_GPU, cluster, until

KILLS = int(os.environ.get("WORKER_KILLS", "1"))
MANY = KILLS > 9
MOST = KILLS + KILLS // 5
"""Of workers that predict, too."""
_SOON_S = 0.2


class Killing:
    """Kills a worker soon after a task was given out, ``most`` times in all, after a fifth of them of other kinds."""

    def __init__(self, engine: Any, workers: Callable[[], list[int]], most: int) -> None:
        self.killed: Counter[str] = Counter()
        self._engine, self._workers, self._most = engine, workers, most
        self._random = random.Random(0)
        self._submit = engine.submit
        engine.submit = self.submit

    def submit(self, task: Task) -> None:
        self._submit(task)
        kind = task.function.partition(":")[2]
        for _ in range(2 if MANY else 1):
            if self.killed.total() < self._most and self.killed[kind] < max(1, KILLS // 5):
                self.killed[kind] += 1
                threading.Timer(self._random.uniform(0, _SOON_S), self._kill).start()

    def _kill(self) -> None:
        workers = self._workers()
        with suppress(ProcessLookupError):
            for worker in self._random.sample(workers, min(1, len(workers))):
                os.kill(worker, signal.SIGKILL)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tasks as there can be, none of which is given up."""
    for engine in ("here", "on_dask"):
        monkeypatch.setattr(f"ensemble.engine.{engine}.MOST_TRIES", KILLS + 1)
    monkeypatch.setattr(assembling, "TASK_CLASS_VOXELS", 1)
    monkeypatch.setattr(building, "PROCESSES_FROM_CLASS_VOXELS", 0)
    monkeypatch.setattr("ensemble.submission.counting.TASK_VOXELS", 1)


def asked(workers: Workers | None = None) -> Request:
    """The small build."""
    request = Request("small.yaml", OUT, Path("manifest.csv"), device="cpu", budget=Budget(4 << 30, 2), workers=workers)
    return replace(request, out=OUT.resolve(), data_root=str(Path("data").resolve()))


@pytest.mark.usefixtures("built", "small_tasks")
@pytest.mark.parametrize("workers", [1, 2, 4] if MANY else [2])
def test_processes_of_this_machine(store, monkeypatch, workers: int) -> None:
    expected, made = begun_anew(), []

    def killing(request: Request, plan: Plan) -> Here:
        engine = Here(workers, in_processes=True)
        made.append(Killing(engine, lambda: [process.pid for process in multiprocessing.active_children()], KILLS))
        return engine

    monkeypatch.setattr(building, "_here", killing)
    build(asked(), store)
    assert (OUT / "submission.zip").read_bytes() == expected
    assert made[0].killed.total() == KILLS
    assert not MANY or {"decide_bands", "find_objects", "write_masks", "count_blocks"} <= made[0].killed.keys()


@pytest.mark.usefixtures("built", "small_tasks")
@pytest.mark.parametrize("workers", [1, 2, 4] if MANY else [2])
def test_workers_of_a_cluster(store, tmp_path_factory, workers: int) -> None:
    if not (MANY or os.environ.get("CLUSTER_TESTS")):
        pytest.skip("takes a minute: make test-cluster, make test-kills")
    expected = begun_anew()
    with (
        cluster(tmp_path_factory.mktemp("cluster"), *[WITH_GPU] * workers) as made,
        OnDask(str(made.file)) as engine,
    ):
        until(lambda: engine.devices == workers)
        pids = engine._client.run(os.getpid)  # of workers, which their nannies start again
        killing = Killing(engine, lambda: list(engine._client.run(os.getpid, on_error="ignore").values()), MOST)
        assert len(pids) == workers
        here = engine.ask("ensemble.predict.device:workers_here", "cpu")
        build(asked(replace(here, devices=workers)), store, None, engine)
    assert (OUT / "submission.zip").read_bytes() == expected
    assert killing.killed.total() >= KILLS
    kinds = {"predict_part", "decide_bands", "find_objects", "write_masks", "count_blocks"}
    assert not MANY or kinds <= killing.killed.keys()
