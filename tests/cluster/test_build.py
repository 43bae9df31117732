"""A build on a cluster's workers, one of which is killed, is byte for byte the one of a single machine.

The scripts of docs/cluster are run as they stand.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.one_node_slurm import Slurm, until
from tests.support.processes import NEVER_S, ROOT

SCRIPTS = ROOT / "docs" / "cluster"
DEMO = ROOT / "build" / "demo"
"""Its data and models, as `make prepare-demo` leaves them. They are only read."""
RECIPE = str(ROOT / "recipes" / "demo.yaml")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for builds of the demo, with the one that this machine makes: ``here/submission.zip``."""
    if not os.environ.get("CLUSTER_TESTS"):
        pytest.skip("takes minutes: make test-cluster")
    folder = tmp_path_factory.mktemp("builds")
    shutil.copytree(DEMO / "mlruns", folder / "mlruns")
    command = [sys.executable, "-m", "ensemble.cli", "build", *arguments(folder, "here")]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **own(folder)}, check=True, timeout=NEVER_S)
    return folder


def own(place: Path) -> dict[str, str]:
    """What commands and jobs are told: where models are, and that nothing but this machine is to be reached."""
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlruns/mlflow.db", "INTERFACE": "lo", "PYTHONPATH": str(ROOT)}


def arguments(place: Path, name: str) -> list[str]:
    """Of a build that shares nothing with any other."""
    places = {
        "data": DEMO / "data",
        "manifest": DEMO / "manifest.csv",
        "out": place / name,
        "cache": cache(place, name),
    }
    return [RECIPE, *(word for key, path in places.items() for word in (f"--{key}", str(path)))]


def cache(place: Path, name: str) -> Path:
    return place / f"{name}-predictions"


def is_same(place: Path, name: str) -> bool:
    """Whether a build's submission is the one of this machine."""
    ours, theirs = (place / build / "submission.zip" for build in ("here", name))
    return ours.read_bytes() == theirs.read_bytes()


def is_predicting(place: Path, name: str) -> bool:
    """Whether more than metadata has been written of a prediction."""
    return any(path.is_file() and path.stat().st_size > 10_000 for path in cache(place, name).rglob("*"))


@pytest.mark.parametrize("how", ["SIGKILL", "scancel"])
def test_on_jobs_of_an_array_of_which_one_is_killed(slurm: Slurm, place: Path, logs: Path, how: str) -> None:
    name = f"array-{how}"
    build = slurm.submit(logs / "build.log", SCRIPTS / "build.slurm.sh", *arguments(place, name), **own(place))
    until(lambda: is_predicting(place, name), "nothing is ever predicted", 120)
    worker, *_ = slurm.running("ensemble-worker")
    if how == "SIGKILL":
        slurm.kill(worker)
    else:
        slurm.run("scancel", worker)
    slurm.wait(build, "COMPLETED", "FAILED", timeout_s=NEVER_S)
    assert slurm.state(build) == "COMPLETED"
    assert is_same(place, name)
    until(lambda: not slurm.run("squeue", "--noheader"), "workers do not leave with their build")
    assert list(ROOT.glob("cluster-??????")) == []


def test_on_jobs_of_dask_jobqueue(slurm: Slurm, place: Path, logs: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed, and optional")
    script = [sys.executable, str(SCRIPTS / "jobqueue.py"), *arguments(place, "jobqueue")]
    with (logs / "jobqueue.log").open("w") as log:
        process = subprocess.Popen(script, cwd=logs, env={**slurm.environment, **own(place)}, stdout=log, stderr=log)
        until(lambda: is_predicting(place, "jobqueue"), "nothing is ever predicted", 120)
        slurm.run("scancel", *slurm.running("dask-worker")[:1])
        assert process.wait(NEVER_S) == 0
    assert is_same(place, "jobqueue")


def test_on_several_workers_of_one_machine(place: Path, logs: Path) -> None:
    script = [str(SCRIPTS / "gpus_of_one_box.sh"), *arguments(place, "box")]
    with (logs / "box.log").open("w") as log:
        done = subprocess.run(
            script, cwd=ROOT, env={**os.environ, **own(place), "GPUS": "0 1"}, stdout=log, stderr=log, timeout=NEVER_S
        )
    assert done.returncode == 0
    assert is_same(place, "box")
