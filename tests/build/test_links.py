"""Symbolic links in a build's folder: none is followed, so that nothing elsewhere is written over or taken away."""

import os
import shutil
from pathlib import Path

import pytest

from ensemble.cli import main
from tests.support.built import OUT, STORE
from tests.support.small_build import run

LINKED = [
    "work",
    "work/lock",
    "work/state.json",
    "work/submission.zarr",
    "work/submission.zarr/crop1",
    "work/submission.zarr/crop1/mito",
    "work/submission.zarr/crop1/mito/.zarray",
    "work/scratch",
    "work/assembled/1.json",
    "submission.zip",
    "replaced",
]


def elsewhere(tmp_path: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()}


def move_and_link(path: Path, tmp_path: Path) -> dict[Path, bytes]:
    """What lies at a path, or would, is elsewhere, and a link in its place."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / path.name
    if path.exists():
        shutil.move(path, target)
    else:
        target.mkdir()
    (tmp_path / "elsewhere/precious").write_text("mine")
    os.symlink(target, path)
    return elsewhere(tmp_path)


@pytest.mark.parametrize("name", LINKED)
def test_a_link_is_refused_in_one_line_and_what_it_leads_to_stays(built, tmp_path, capsys, name: str) -> None:
    before = move_and_link(OUT / name, tmp_path)
    if name != "submission.zip":
        (OUT / "submission.zip").unlink()  # so that there is something to do
    commands = [run] if name in ("submission.zip", "replaced") else [run, lambda: main(["clean", str(OUT), "--all"])]
    for command in commands:
        capsys.readouterr()
        assert command() == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ensemble: ")]
        assert line == f"ensemble: {OUT / name}: is a symbolic link, which is not followed here; take it away"
        assert elsewhere(tmp_path) == before
    (OUT / name).unlink()
    assert run() == 0


@pytest.mark.parametrize("what", ["*.zarr", "*.planes", "*.lock", "lock", "users"])
def test_a_link_among_stored_predictions_is_not_followed(built, tmp_path, capsys, what: str) -> None:
    shutil.rmtree(OUT)
    path = sorted(STORE.glob(what))[0]
    if what == "*.zarr":
        (path / ".zarray").unlink()  # so that it is to be written again
    before = move_and_link(path, tmp_path)
    assert run() in (0, 2)
    assert elsewhere(tmp_path) == before
    assert main(["clean", str(STORE), "--all"]) in (0, 2)
    assert elsewhere(tmp_path) == before
