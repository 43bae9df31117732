"""What goes wrong outside a build: one line, nothing lost, and the same command goes on once it is mended."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import mlflow_server
import pytest
from small_build import BUILD, card, checkpoint, predictions, run, start, wait_for, wrong

from registry.store import Registry

OUT = Path("build/small")


def one_line(process: subprocess.Popen) -> str:
    """What a build that had to end said."""
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("ensemble: ")]
    assert not (OUT / "submission.zip").exists()
    return line


def as_undisturbed() -> bool:
    assert run("--out", "undisturbed") == 0
    return (OUT / "submission.zip").read_bytes() == Path("undisturbed/submission.zip").read_bytes()


def test_a_disk_that_fills_midway(place) -> None:
    """On a file system of 400 kB: predictions fit, the submission does not."""
    OUT.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(OUT)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        line = one_line(start())
        assert "the disk is full" in line
        kept = predictions(place)
        assert kept
        subprocess.run(["mount", "-o", "remount,size=64m", str(OUT)], check=True)
        assert run() == 0
        assert {path: kept[path] for path in kept if ".zarr" in path}.items() <= predictions(place).items()
        assert as_undisturbed()
    finally:
        subprocess.run(["umount", "-l", str(OUT)], check=True)


def test_a_damaged_prediction_is_told_never_used_and_made_anew(place, capsys) -> None:
    assert run() == 0
    first = (OUT / "submission.zip").read_bytes()
    chunk = max((OUT / "work/predictions").glob("*.zarr/[0-9]*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    shutil.rmtree(OUT / "work/assembled")
    (OUT / "submission.zip").unlink()
    line = wrong(capsys, *BUILD)
    assert f"chunk {chunk.name} cannot be read" in line
    assert "run the same command again to predict it anew" in line
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == first


def test_a_lost_prediction_chunk_and_a_lost_final_chunk_are_made_anew(place) -> None:
    assert run() == 0
    first = (OUT / "submission.zip").read_bytes()
    kept = predictions(place)
    for folder in (OUT / "work/predictions").glob("*.zarr"):
        max(folder.glob("[0-9]*")).unlink()
    next((OUT / "work/submission.zarr/crop1/mito").glob("[0-9]*")).unlink()
    (OUT / "submission.zip").unlink()
    assert run() == 0
    assert (OUT / "submission.zip").read_bytes() == first
    assert set(predictions(place)) == set(kept)


def test_a_worker_killed_for_its_memory_goes_on_from_its_last_block(place) -> None:
    process = start()
    wait_for("work/scratch/*/journal", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = predictions(place)
    assert run() == 0
    assert predictions(place) == kept
    assert as_undisturbed()


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
        process = start()
        wait_for("work/predictions/*.zarr/*.*.*.*", process)
        os.kill(process.pid, signal.SIGSTOP)
        server.stop()
        os.kill(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2
        assert "Traceback" not in errors
        (line,) = [line for line in errors.splitlines() if line.startswith("ensemble: ")]
        assert server.address in line
        server.start()
        assert run() == 0
        assert (OUT / "submission.zip").exists()


def test_changed_weights_rerun_their_own_model_only(place, store) -> None:
    assert run() == 0
    kept = predictions(place)
    version = store.register(checkpoint(place / "b.pt", 2, 9), card("coarse", ("nuc", "mito"), 16), alias="champion")
    try:
        assert run("--update-lock") == 0
    finally:
        store.set_alias("coarse", "champion", 1, "back")
    assert version.version > 1
    after = predictions(place)
    assert kept.items() <= after.items()
    made = {path.split("/predictions/")[1].split("/")[0] for path in set(after) - set(kept)}
    assert len({name.split(".")[0] for name in made}) == 2  # the other model's, for each crop


def test_alone_another_threshold_reruns_its_own_class_only(place) -> None:
    text = Path("small.yaml").read_text().replace("consistency: joint", "consistency: none")
    Path("small.yaml").write_text(text)
    assert run() == 0

    def written() -> dict[str, int]:
        arrays = OUT.glob("work/submission.zarr/crop*/*/.zarray")
        return {f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns for path in arrays}

    before = written()
    Path("small.yaml").write_text(text.replace("nuc: {source: coarse,", "nuc: {source: coarse, threshold: 0.45,"))
    assert run() == 0
    after = written()
    assert {name for name in before if after[name] != before[name]} == {"crop1/nuc", "crop2/nuc"}


@pytest.mark.parametrize("workers", ["1", "3"])
def test_any_number_of_workers_gives_the_same_bytes(place, workers: str) -> None:
    assert run("--workers", workers) == 0
    assert as_undisturbed()
