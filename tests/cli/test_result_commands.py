"""``score``, ``report``, ``view`` and ``diff``."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from ensemble.cli import main
from ensemble.cli.result_commands import add_result_commands
from ensemble.core import manifest
from tests.support import small_submission
from tests.support.small_build import card, checkpoint
from tests.support.volumes import write_array


def test_scores_on_crops_that_a_model_was_trained_on_are_flagged(place, store, capsys) -> None:
    coarse = checkpoint(place / "c.pt", 2, 5)
    seen = card("seen", ("nuc", "mito"), 16).model_copy(update={"trained_on": ("2",)})
    store.register(coarse, seen, alias="champion")
    recipe = "name: seen\nsources: {m: {model: 'models:/seen@champion'}}\ndefaults: {source: m}\n"
    (place / "seen.yaml").write_text(recipe)
    assert main(["build", "seen.yaml", "--manifest", "manifest.csv", "--classes", "nuc", "--out", "build/seen"]) == 0
    for target in manifest.load_manifest(Path("manifest.csv")):
        truth = np.ones(target.grid.shape, np.uint8)
        write_array(place / "truth.zarr" / target.group / "nuc", truth, target.grid)
    capsys.readouterr()
    scored = ["score", "build/seen", "--truth", "truth.zarr", "--manifest", "manifest.csv"]
    assert main([*scored, "--json", "s.json"]) == 0
    said = capsys.readouterr().out
    assert "leakage: m was trained on crop2" in said
    assert "crop1" not in said.partition("leakage")[2].splitlines()[0]
    assert json.loads(Path("s.json").read_text())["trained_on"] == {"crop2": ["m"]}
    checked = ["check", "build/seen", "--manifest", "manifest.csv"]
    assert main(checked) == 1  # a part of the manifest
    assert "made for a part of this manifest: 2 of 16 arrays" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "manifest.csv"],
        ["view", "manifest.csv"],
        ["diff", "manifest.csv", "build/small"],
        ["diff", "build/small", "build/small", "--page", "."],
    ],
)
def test_wrong_places_are_one_line(built, capsys, arguments):
    capsys.readouterr()
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ensemble: ")]
    assert len(said) == 1


def test_a_check_exits_with_one_where_there_are_faults_and_tells_them_as_json(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest.write_manifest(tmp_path / "manifest.csv", small_submission.TARGETS)
    root = small_submission.write(tmp_path / "s")
    small_submission.zipped(root)
    commands = argparse.ArgumentParser().add_subparsers()
    add_result_commands(commands)
    said = ["s.zip", "--manifest", "manifest.csv", "--json"]
    arguments = commands.choices["check"].parse_args(said)
    assert arguments.run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    small_submission.remove(root, "crop984")
    small_submission.zipped(root)
    assert arguments.run(arguments) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["crop984: is missing, with all of its 1 array"]
