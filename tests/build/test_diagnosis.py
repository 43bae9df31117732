"""The doctor: each thing that would end a build is found before it begins, and nothing else is called wrong."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.build.diagnosis import Finding, diagnose
from ensemble.cli import main
from ensemble.core.manifest import load_manifest
from ensemble.plan.budget import Budget
from ensemble.plan.request import Request
from registry.store import Registry
from tests.support.small_build import edit, run
from tests.support.volumes import write_array

REQUEST = Request("small.yaml", Path("build/small"), Path("manifest.csv"), device="cpu", budget=Budget(2**32, 2))


def found(request: Request | None = REQUEST) -> list[Finding]:
    return list(diagnose(Registry(), request))


def wrong(request: Request = REQUEST) -> list[str]:
    return [f"{one.about}: {one.text}" for one in found(request) if one.state == "wrong"]


def test_where_all_is_well_every_part_is_told_and_a_build_follows(place, capsys):
    assert [one.about for one in found() if one.state != "look"] == [
        *("machine", "registry", "data", "recipe", "memory", "disk", "predictions", "time"),
    ]
    arguments = ["small.yaml", "--manifest", "manifest.csv", "--device", "cpu"]
    assert main(["doctor", *arguments]) == 0
    said = capsys.readouterr().out
    assert "0 of 4 predictions found, 4 to compute" in said
    assert said.endswith("nothing stands in the way\n")
    assert not Path("build").exists()
    assert main(["build", *arguments]) == 0
    assert main(["doctor", *arguments]) == 0
    assert "4 of 4 predictions found" in capsys.readouterr().out


def test_without_a_recipe_it_looks_at_machine_and_registry(place, capsys):
    assert main(["doctor"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[:-1]] == ["GPU:", "machine:", "registry:"]


def test_data_that_is_not_there_is_told_with_the_crops_that_need_it(place):
    shutil.rmtree("data/d")
    looked = [one.text for one in found() if one.about == "data"]
    assert looked[0].startswith("d (crops 1 2): data/d")
    assert len(wrong()) == 1


def test_what_another_tool_did_not_write_is_told(place):
    edit("small.yaml", "/theirs/", "/typo/")
    (line,) = wrong()
    assert line.startswith("predictions: data/typo/d.zarr/crop1/ecs: there is no such array")


def test_too_little_memory_is_told(place):
    (line,) = wrong(replace(REQUEST, budget=Budget(2**20, 2)))
    assert line.startswith("memory: --memory")


def test_a_model_nobody_registered_is_told(place):
    edit("small.yaml", "models:/fine@champion", "models:/fined@champion")
    (line,) = wrong()
    assert "did you mean 'fine'?" in line


def test_a_registry_that_does_not_answer_is_told(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert wrong()[0].startswith("registry: http://127.0.0.1:9: ")


def test_its_warnings_are_the_plans(place):
    edit("small.yaml", "consistency: joint", "consistency: joint\ntune: {}")
    edit("small.yaml", "empty: [pm, ld, lyso]", "empty: [pm, lyso]")
    edit("small.yaml", "  nuc: {source: coarse, weight: hard}", "  nuc: {source: coarse}\n  er: {source: coarse}")
    recipe = [one for one in found(replace(REQUEST, classes=["nuc"])) if one.about == "recipe"]
    assert [one.state for one in recipe] == ["good", "look"]
    assert recipe[1].text.endswith("no crop of the manifest is scored on er")


def stored(place: Path, values: np.ndarray) -> None:
    """What another tool says of ecs in both crops."""
    for target in load_manifest(Path("manifest.csv")):
        grid = target.grid.covering((8, 8, 8))
        write_array(place / f"data/theirs/d.zarr/{target.group}/ecs", np.resize(values, grid.shape), grid)


def test_values_that_would_end_a_build_after_its_networks_ran_are_told_before(place, capsys):
    stored(place, np.array([0.0, 2.0], np.float32))
    (line,) = wrong()
    assert "values run from 0.0 to 2.0" in line
    assert run() == 2
    assert "predict" not in capsys.readouterr().err.split()  # no network has run
    stored(place, np.array([0, 1], np.uint8))
    assert wrong() == []
    (look,) = [one.text for one in found() if (one.state, one.about) == ("look", "predictions")]
    assert look.startswith("in the middle of the crops, data/theirs/d.zarr/crop")
    assert "the highest value of source theirs is 1 where uint8 goes up to 255" in look
    stored(place, np.array([0, 255], np.uint8))
    assert [one for one in found() if (one.state, one.about) == ("look", "predictions")] == []
