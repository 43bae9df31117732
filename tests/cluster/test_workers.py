"""docs/cluster/workers.slurm.sh, as it stands: workers that come and go while the work is done."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, Future, get_worker

from tests.cluster.one_node_slurm import GPUS, Slurm, until
from tests.support.processes import ROOT

SCRIPT = ROOT / "docs" / "cluster" / "workers.slurm.sh"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Of a scheduler whose address is in scheduler.json."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", str(file)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"])
    try:
        with Client(scheduler_file=str(file)) as connected:
            yield connected
    finally:
        process.terminate()
        process.wait()


def job_and_gpu(seconds: float, number: int) -> tuple[int, str, str]:
    """What a task is told of where it runs."""
    time.sleep(seconds)
    assert get_worker().state.total_resources == {"GPU": 1.0}
    return number, os.environ["SLURM_ARRAY_TASK_ID"], os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_worker_that_is_killed_is_followed_by_the_next_of_the_array_and_all_tasks_are_done(
    slurm: Slurm, client: Client, tmp_path: Path, logs: Path
) -> None:
    array = slurm.submit(logs / "worker-%a.log", SCRIPT, tmp_path / "scheduler.json", INTERFACE="lo")
    client.wait_for_workers(GPUS, timeout=60)
    futures: list[Future] = [
        client.submit(job_and_gpu, 1, number, resources={"GPU": 1}, pure=False) for number in range(12)
    ]
    until(lambda: any(future.status == "finished" for future in futures), "no task is ever done")
    first, _ = sorted(slurm.running("ensemble-worker"), key=int)
    slurm.kill(first)
    results = client.gather(futures)
    assert [number for number, _, _ in results] == list(range(12))
    assert {gpu for _, _, gpu in results} == {"0", "1"}
    assert {job for _, job, _ in results} == {"2", "3"}, "what a dead worker held is computed anew"
    client.shutdown()
    until(lambda: not slurm.run("squeue", "--noheader", "--jobs", array), "jobs do not end with their scheduler")
