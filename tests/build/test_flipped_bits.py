"""A bit that changes on disk, in whatever a build left to go on from, never changes a submission in silence."""

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.built import OUT, STORE
from tests.support.small_build import run, start


def kind(path: Path) -> str:
    """Files of a kind are written by the same code."""
    folder = path.parent
    if path.name.startswith("."):
        return f"{path.name} of {'predictions' if STORE in path.parents else folder.parent.name}"
    if path.suffix in (".json", ".planes") or path.name == "journal":
        return path.suffix if STORE in path.parents or folder.name == "assembled" else path.name
    if STORE in path.parents:
        return "prediction"
    return f"scratch {folder.name}" if "scratch" in path.parts else "array"


def flipped(seed: int, each: int) -> Iterator[Path]:
    """Of each kind of file some, one after the other, with one bit changed; all else is as it was."""
    left = Path("left")
    shutil.copytree("build", left)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(p for folder in (OUT / "work", STORE) for p in folder.rglob("*")):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(kind(path), []).append(path)
    rng = random.Random(seed)
    for name in sorted(kinds):
        for _ in range(each):
            path = rng.choice(kinds[name])
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            yield path
            shutil.rmtree("build")
            shutil.copytree(left, "build")


def assert_never_wrong_in_silence(path: Path, whole: bytes, capfd: pytest.CaptureFixture) -> None:
    """The submission is the same, or that is refused and the same command makes it anew."""
    capfd.readouterr()
    code = run()
    errors = capfd.readouterr().err
    assert "Traceback" not in errors, path
    if code == 0:
        assert (OUT / "submission.zip").read_bytes() == whole, path
        return
    assert code == 1 or len([line for line in errors.splitlines() if line.startswith("ensemble: ")]) == 1, path
    assert run() == 0, (path, errors)
    assert (OUT / "submission.zip").read_bytes() == whole, path


@pytest.mark.slow
def test_of_a_finished_build_whose_zip_is_gone(built: Path, capfd: pytest.CaptureFixture) -> None:
    whole = (OUT / "submission.zip").read_bytes()
    (OUT / "submission.zip").unlink()
    for path in flipped(1, each=1):
        assert_never_wrong_in_silence(path, whole, capfd)


@pytest.mark.slow
def test_of_an_interrupted_build(built: Path, capfd: pytest.CaptureFixture) -> None:
    whole = (OUT / "submission.zip").read_bytes()
    shutil.rmtree(OUT)
    process = start(stop_at="scratch/*/*/*-lost/*.*.*[0-9]")
    process.send(signal.SIGKILL)
    process.ended()
    for path in flipped(2, each=1):
        if OUT in path.parents:  # predictions are as in a finished build
            assert_never_wrong_in_silence(path, whole, capfd)
