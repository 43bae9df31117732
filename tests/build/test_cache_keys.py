"""What was assembled before is used while nothing that made it has changed: routes, sources, code, libraries."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from ensemble.build.cache_keys import group_key
from ensemble.plan.plan import CropPlan
from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.support import digests
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.processes import ROOT

MAKES_ARRAYS = {
    "engine",
    "build",
    "core",
    "decode",
    "methods",
    "plan",
    "predict",
    "storage",
    "submission",
    "support",
    "registry",
}
MAKES_PROBABILITIES = MAKES_ARRAYS - {"build", "decode"}

EVERY_EDIT = """
import json, sys
from pathlib import Path
from ensemble.support.digests import code_digest

def digests():
    code_digest.cache_clear()
    return {name: code_digest(f"ensemble.{name}") for name in ("build", "predict")}

before, changed = digests(), {}
for path in sorted([*Path("ensemble").rglob("*.*"), *Path("registry").rglob("*.*")]):
    if path.suffix == ".pyc" or not path.is_file():
        continue
    text = path.read_bytes()
    path.write_bytes(text + b"\\n")
    changed[path.as_posix()] = [name for name, value in digests().items() if value != before[name]]
    path.write_bytes(text)
assert digests() == before
print(json.dumps(changed))
"""


@pytest.mark.slow
def test_an_edit_of_any_file_changes_the_keys_of_what_it_may_make_and_no_other(tmp_path) -> None:
    for package in ("ensemble", "registry"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    told = subprocess.run(
        [sys.executable, "-c", EVERY_EDIT], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert told.returncode == 0, told.stderr.decode()
    changed = json.loads(told.stdout)
    assert len(changed) > 170
    for path, keys in changed.items():
        parts = Path(path).parts
        room = parts[0] if parts[0] == "registry" else parts[1]
        expected = [n for n, rooms in (("build", MAKES_ARRAYS), ("predict", MAKES_PROBABILITIES)) if room in rooms]
        assert keys == expected, path


@pytest.fixture
def made_of(place) -> tuple[CropPlan, Predictor, Request]:
    request = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu")
    prepared = prepare(request, Registry())
    return prepared.plan.crops[0], Predictor.of(request, prepared, Registry(), QuietProgress()), request


def key(made_of, **changed) -> str:
    plan, predictor, request = made_of
    given = {"crop": plan, "group": plan.claimed, "budget": request.budget, "joint": True, **changed}
    return group_key(given["crop"], given["group"], predictor, given["budget"], joint=given["joint"])


def test_the_same_is_the_same(made_of) -> None:
    assert key(made_of) == key(made_of)


def test_another_threshold_or_order_or_way_of_deciding_is_another(made_of) -> None:
    plan, _, _ = made_of
    mito = replace(plan.routes["mito"], threshold=0.4)
    other = [
        key(made_of),
        key(made_of, crop=replace(plan, routes={**plan.routes, "mito": mito})),
        key(made_of, crop=replace(plan, routes=dict(reversed(plan.routes.items())))),
        key(made_of, joint=False),
        key(made_of, group=plan.claimed[:1], joint=False),
        key(made_of, group=plan.claimed[1:2], joint=False),
    ]
    assert len(set(other)) == len(other)


def test_a_class_alone_does_not_depend_on_another(made_of) -> None:
    plan, _, _ = made_of
    nuc = replace(plan.routes["nuc"], threshold=0.4)
    other = replace(plan, routes={**plan.routes, "nuc": nuc})
    assert key(made_of, group=("mito",), joint=False) == key(made_of, crop=other, group=("mito",), joint=False)
    assert key(made_of, group=("nuc",), joint=False) != key(made_of, crop=other, group=("nuc",), joint=False)


def test_memory_that_changes_nothing_is_not_in_the_key(made_of) -> None:
    _, _, request = made_of
    roomy = replace(request.budget, memory_bytes=request.budget.memory_bytes * 2, workers=7)
    assert key(made_of) == key(made_of, budget=roomy)


@pytest.mark.parametrize("library", digests.COMPUTING_LIBRARIES)
def test_another_version_of_a_library_that_computes_is_another(made_of, monkeypatch, library) -> None:
    before, installed = key(made_of), metadata.version
    monkeypatch.setattr(digests, "version", lambda name: "0.0.1" if name == library else installed(name))
    monkeypatch.setattr(digests, "_version", digests._version.__wrapped__)  # as a new process asks
    assert key(made_of) != before
