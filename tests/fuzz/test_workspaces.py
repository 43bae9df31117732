"""A damaged workspace: what is damaged is made anew or told in one line, whatever the damage is."""

import json
import random
import shutil
from pathlib import Path

import pytest

from ensemble.build.cleanup import leftovers
from ensemble.build.workspace import Workspace
from ensemble.core.manifest import load_manifest
from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.report.facts import gather_facts
from ensemble.report.finished_build import FinishedBuild
from ensemble.support import files
from ensemble.support.errors import EnsembleError
from ensemble.support.journal import Journal
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.fuzz.mutations import spoilt_bytes, spoilt_value
from tests.fuzz.running import outcomes
from tests.support.built import OUT

KEPT = (OUT, OUT.parent / "predictions")


def spoil(rng: random.Random, path: Path) -> None:
    """Damage a file: its bytes, its values under a seal that is right, or what it is."""
    data, what = path.read_bytes(), rng.randrange(8)
    if what == 0:
        path.unlink()
    elif what == 1:
        path.unlink()
        path.mkdir()
    elif what == 2:
        path.write_bytes(b"")
    elif what == 3 and (values := files.read_sealed(path)) is not None:
        files.write_sealed(path, spoilt_value(rng, values))
    elif what == 4 and path.suffix in (".json", ".yaml", ""):
        path.write_text(json.dumps(spoilt_value(rng, {"a": [1, {"b": 2}], "key": "x"})))
    elif what == 5 and path.name == "journal":
        path.unlink()
        journal = Journal.open(path)
        journal.note(rng.choice(("key", "band", "layout", "x")), spoilt_value(rng, [1, "a"]))
        journal.close()
    else:
        path.write_bytes(spoilt_bytes(rng, data))


@pytest.fixture
def kept(built: Path) -> dict[Path, bytes]:
    """Every file that a build keeps, with its content; one crop is begun."""
    (target, _) = load_manifest(Path("manifest.csv"))
    work = Workspace(OUT / "work")
    journal = work.begin(target, ("mito",), "a key")
    journal.note("band", 1)
    journal.close()
    return {path: path.read_bytes() for folder in KEPT for path in folder.rglob("*") if path.is_file()}


def restore(kept: dict[Path, bytes]) -> None:
    for folder in KEPT:
        for path in [*folder.rglob("*")]:
            if path.is_file() and path not in kept:
                path.unlink()
    for path, data in kept.items():
        if path.is_dir():
            shutil.rmtree(path)
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def each(*actions) -> None:
    """All of them; a refusal of one keeps none of the others from being tried."""
    refused = []
    for action in actions:
        try:
            action()
        except EnsembleError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def test_what_is_damaged_is_made_anew_or_told(kept: dict[Path, bytes]) -> None:
    registry, names = Registry(), sorted(kept)

    def run(rng: random.Random) -> None:
        for path in rng.sample(names, rng.randint(1, 2)):
            if path.is_file():
                spoil(rng, path)
        work = Workspace(OUT / "work")

        def go_on() -> None:
            request = Request.again(OUT)
            prepared = prepare(request, registry)
            predictor = Predictor.of(request, prepared, registry, QuietProgress())
            for crop in prepared.plan.crops:
                work.finished(crop.target, crop.claimed, "a key")
                work.begin(crop.target, ("mito",), "a key").close()
                each(*(lambda job=job: predictor.stored(job) for job in crop.jobs))
                for field in predictor.fields(crop).values():
                    field.probability(crop.target.grid, "linear")

        def look() -> None:
            gather_facts(FinishedBuild.of(OUT), likely={}, registry_address="")

        each(go_on, look, lambda: leftovers(OUT, everything=rng.random() < 0.5))

    def restored(rng: random.Random) -> None:
        try:
            run(rng)
        finally:
            restore(kept)

    counts = outcomes(60, restored)
    assert counts["refused"] > 0
    assert counts["read"] > 0
