"""What goes wrong outside a build: one line, nothing lost, and the same command goes on once it is mended."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry.store import Registry
from tests.support import mlflow_server
from tests.support.built import OUT, begun_anew
from tests.support.processes import Forked, go_on
from tests.support.small_build import card, checkpoint, edit, predictions, run, start
from tests.support.troubled_server import page, troubled


def one_line(process: Forked) -> str:
    """What a build that had to end said."""
    _, errors = process.ended()
    assert process.returncode == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("ensemble: ")]
    assert not (OUT / "submission.zip").exists()
    return line


def test_a_disk_that_fills_midway(built) -> None:
    """On a file system of 400 kB: predictions fit, the submission does not."""
    whole = begun_anew()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", "build"], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        line = one_line(start())
        assert "the disk is full" in line
        kept = predictions(built)
        assert kept
        subprocess.run(["mount", "-o", "remount,size=64m", "build"], check=True)
        assert run() == 0
        assert {path: kept[path] for path in kept if ".zarr" in path}.items() <= predictions(built).items()
        assert (OUT / "submission.zip").read_bytes() == whole
    finally:
        subprocess.run(["umount", "-l", "build"], check=True)


@pytest.mark.slow
def test_a_registry_server_that_goes_away_in_the_middle(place, tmp_path_factory, monkeypatch) -> None:
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server.started(folder) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        store = Registry(server.address)
        store.register(
            checkpoint(folder / "a.pt", 3, 1), card("fine", ("mito", "mito_mem", "mito_lum"), 4), alias="champion"
        )
        store.register(checkpoint(folder / "b.pt", 2, 2), card("coarse", ("nuc", "mito"), 16), alias="champion")
        process = start(stop_at="predictions/*.zarr/*.*.*.*[0-9]", number=2)
        server.stop()
        errors = go_on(process)
        assert process.returncode == 2
        assert "Traceback" not in errors
        (line,) = [line for line in errors.splitlines() if line.startswith("ensemble: ")]
        assert server.address in line
        server.start()
        assert run() == 0
        assert (OUT / "submission.zip").exists()


@pytest.fixture
def troubled_server() -> Iterator[Callable[[int], str]]:
    """Start a server where MLflow should be that answers everything with one status; gives its address."""
    with ExitStack() as started:
        yield lambda status: f"http://127.0.0.1:{started.enter_context(troubled(page(status))).server_port}"


@pytest.mark.parametrize("where", ["read-only", "unreachable", "401", "503"])
def test_a_registry_that_takes_no_run_is_told_before_and_decides_nothing(
    place, monkeypatch, capfd, troubled_server, where
) -> None:
    address = "http://127.0.0.1:9"
    if where.isdecimal():
        address = troubled_server(int(where))
    if where == "read-only":
        (place / "mlruns").mkdir()
        (place / "mlruns" / "artifacts").write_text("where a folder should be")
        address = f"sqlite:///{place}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    edit("small.yaml", "source: fine,", "source: empty,")
    edit("small.yaml", "{mean: {fine: 3, coarse: 1}}", "theirs")
    edit("small.yaml", "coarse, weight: hard", "empty")
    manifest = Path("manifest.csv").read_text().splitlines()
    Path("manifest.csv").write_text("\n".join(line for line in manifest if ",mito" not in line) + "\n")
    assert run() == 0
    errors = capfd.readouterr().err.splitlines()
    (said,) = [line for line in errors if "registry" in line or "MLflow" in line]
    assert said.endswith("; the build goes on and will not be recorded")
    assert errors.index(said) == 0
    assert not any("Traceback" in line or "ERROR" in line for line in errors)
    assert (OUT / "report.html").exists()
