"""The Makefile, run by make: what its commands are given, and what clean takes away."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout that is set up, whose ``ensemble`` prints what it is given, each word in brackets."""
    folder = tmp_path / "my project"
    shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("ensemble", "registry", "tests", "benchmarks", ".venv/bin"):
        (folder / name).mkdir(parents=True)
    program = folder / ".venv/bin/ensemble"
    program.write_text("#!/bin/sh\nprintf '[%s]' \"$@\"\necho\n")
    program.chmod(0o755)
    (folder / ".venv/.ready").touch()
    return folder


def make(project: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    names = ("RECIPE", "DATA", "MANIFEST", "OUT", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [str(MAKE), "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=project, env=environment, input=answer, capture_output=True, text=True)


def given(project: Path, *arguments: str) -> list[str]:
    """What ``ensemble`` was given by ``make submission``, a line for each time."""
    done = make(project, "-s", "submission", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


DEMO = [
    "[demo][--out][build/demo][--prepare]",
    "[build][{}][--data][build/demo/data][--manifest][build/demo/manifest.csv][--out][build/demo]",
]


@pytest.mark.parametrize("said", ["recipes/demo.yaml", "./recipes/demo.yaml", ""])
def test_the_demos_recipe_brings_its_own_data(project: Path, said: str) -> None:
    shown = said or "recipes/demo.yaml"
    assert given(project, *([f"RECIPE={said}"] if said else [])) == [line.format(shown) for line in DEMO]


def test_the_demos_models_are_found_wherever_it_is_built_and_ones_own_are_left_alone(project: Path) -> None:
    (project / ".venv/bin/ensemble").write_text('#!/bin/sh\necho "$1 in $MLFLOW_TRACKING_URI"\n')
    (project / "mine.yaml").touch()
    own = f"build in sqlite:///{project}/build/demo/mlruns/mlflow.db"
    assert given(project, "OUT=build/elsewhere")[-1] == own
    assert given(project, "RECIPE=mine.yaml") == ["build in "]


@pytest.mark.parametrize("said", ["demo.yaml", "mine/recipes/demo.yaml", "my recipes/demo.yaml", "it's a  demo.yaml"])
def test_a_recipe_of_ones_own_is_taken_as_it_is(project: Path, said: str) -> None:
    (project / said).parent.mkdir(parents=True, exist_ok=True)
    (project / said).write_text("name: mine\n")
    assert given(project, f"RECIPE={said}") == [f"[build][{said}][--data][data]"]
    options = ["DATA=s3://bucket/my em", "MANIFEST=my crops.csv", "OUT=build/my demo"]
    assert given(project, f"RECIPE={said}", *options) == [
        f"[build][{said}][--data][s3://bucket/my em][--manifest][my crops.csv][--out][build/my demo]"
    ]
    assert f"build '{said}'" in make(project, "--dry-run", "submission", f"RECIPE={said}").stdout or "'" in said


@pytest.mark.parametrize("said", ["final.yaml", "demo.yaml", "final", "my recipes/final.yaml"])
def test_a_recipe_that_is_not_there_is_never_taken_for_one_that_is_shipped(project: Path, said: str) -> None:
    done = make(project, "submission", f"RECIPE={said}")
    assert done.returncode == 2
    line, *_ = done.stderr.splitlines()
    assert line.startswith(f"RECIPE={said}: there is no such file; give the path of yours, or of one that is shipped:")
    assert "recipes/final.yaml" in line
    assert "[build]" not in done.stdout


def test_help_names_every_target(project: Path) -> None:
    lines = make(project, "help").stdout.splitlines()
    text = (project / "Makefile").read_text()
    targets = text.partition(".PHONY:")[2].partition("\n")[0].split()
    assert [line.split()[0] for line in lines] == [name for name in targets if name != "recipe"]
    assert make(project).stdout.splitlines() == lines


KEPT = ["build/mine/submission.zip", "build/predictions/a.zarr/0.0", "build/training/m/last.ckpt", "mlruns/mlflow.db"]
CACHES = [".pytest_cache/x", ".mypy_cache/x", "build/coverage/index.html", "ensemble/__pycache__/a.pyc"]


@pytest.fixture
def used(project: Path) -> Path:
    for name in (*KEPT, *CACHES, "data/em"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    return project


def test_clean_takes_only_what_is_soon_made_again(used: Path) -> None:
    assert make(used, "clean").returncode == 0
    assert [name for name in KEPT if not (used / name).exists()] == []
    assert [name for name in CACHES if (used / name).exists()] == []


@pytest.mark.parametrize("answer", ["", "no\n", "y\n", "yes please\n"])
def test_distclean_takes_nothing_unless_it_is_told_yes(used: Path, answer: str) -> None:
    done = make(used, "distclean", answer=answer)
    assert done.returncode == 2
    assert "build/predictions" in done.stdout  # with its size
    assert "nothing was removed" in done.stderr
    assert [name for name in KEPT if not (used / name).exists()] == []


def test_distclean_takes_builds_and_checkpoints_and_leaves_models_and_data(used: Path) -> None:
    assert make(used, "distclean", answer="yes\n").returncode == 0
    assert not (used / "build").exists()
    assert (used / "mlruns/mlflow.db").exists()
    assert (used / "data/em").exists()
    assert make(used, "distclean").returncode == 0
