"""Files of a build with values of another kind, rightly sealed: told in one line or made anew, by every command."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble.cli import main
from ensemble.support import dump_yaml, files, load_yaml
from ensemble.support.errors import EnsembleError
from tests.fuzz.mutations import ODD, spoilt_value
from tests.support.built import OUT, STORE
from tests.support.small_build import BUILD

KINDS = [
    *("lock.yaml", "plan.json", "check.json", "costs.json", "report.json"),
    *("work/state.json", "work/needed.json", "work/request.json", "work/assembled/1.json"),
    *("../predictions/users/*.json", "../predictions/*.planes"),
]
COMMANDS: list[list[str]] = [
    ["plan", *BUILD[1:]],
    BUILD,
    ["report", str(OUT)],
    ["diff", str(OUT), str(OUT)],
    ["clean", str(OUT), "--dry-run"],
    ["build", "other.yaml", *BUILD[2:], "--out", str(OUT), "--overwrite"],
]


def values_of(path: Path) -> tuple[Any, Callable[[Any], object]]:
    """What a file says, and how to have it say something else, sealed where it is."""
    if path.suffix == ".yaml":
        return load_yaml(path, EnsembleError)[0], lambda values: path.write_text(dump_yaml(values))
    sealed = files.read_sealed(path)
    if sealed is not None:
        return sealed, lambda values: files.write_sealed(path, values)
    return json.loads(path.read_text()), lambda values: path.write_text(json.dumps(values))


def spoil(rng: random.Random, pattern: str) -> None:
    path = rng.choice(sorted(OUT.glob(pattern)))
    values, write = values_of(path)
    whole = rng.random() < 0.2
    write(rng.choice([odd for odd in ODD if odd is not None]) if whole else spoilt_value(rng, values))


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_takes_it_in_its_stride(built: Path, capfd: pytest.CaptureFixture, kind: str) -> None:
    shutil.copy("small.yaml", "other.yaml")
    shutil.copytree("build", "build-left")
    outside = {path for path in built.rglob("*") if not path.is_relative_to(built / "build")}
    rng = random.Random(kind)
    for _ in range(int(os.environ.get("FUZZ_STATES", "1"))):
        spoil(rng, kind)
        spoilt = {path: path.read_bytes() for path in OUT.glob(kind) if path.is_file()}
        for command in COMMANDS:
            capfd.readouterr()
            code = main(command)
            errors = capfd.readouterr().err
            assert code in (0, 1, 2), (command, spoilt)
            assert "Traceback" not in errors, (command, spoilt)
        now = {path for path in built.rglob("*") if not path.is_relative_to(built / "build")}
        assert now == outside, (now - outside, spoilt)
        shutil.rmtree("build")
        shutil.copytree("build-left", "build")
    assert STORE.is_dir()
