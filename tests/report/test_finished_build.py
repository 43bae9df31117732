"""A build's folder, as it lies there: whole, or told what is wrong with it."""

import json

import pytest

from ensemble.cli import main
from ensemble.core.grid import Grid
from ensemble.report.finished_build import FinishedBuild
from ensemble.support.errors import EnsembleError
from ensemble.support.files import read_sealed
from tests.support.built import OUT


def test_a_folder_without_a_build_is_told(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds no finished build; run ensemble build" in capsys.readouterr().err


def test_a_builds_files_say_where_its_crops_lie(built):
    build = FinishedBuild.of(OUT)
    assert build.grid("1") == Grid((70, 18, 20), (4, 4, 4), (22, 82, 82))
    assert [target.group for target in build.targets] == ["crop1", "crop2"]
    assert build.targets[0].grid == build.grid("1")
    assert {target.dataset for target in build.targets} == {"d"}
    assert set(build.targets[0].classes) == set(build.check.arrays["crop1"])
    assert [level.grid.voxel_size_nm for level in build.em("d")] == [(8, 8, 8)]
    assert build.em("elsewhere") is None
    assert build.scores is None
    assert build.data_root == read_sealed(OUT / "work" / "request.json")["data_root"]
    costs = json.loads((OUT / "costs.json").read_text())
    assert [stage.stage for stage in build.costs.stages] == [stage["stage"] for stage in costs["stages"]]


def test_a_request_that_was_damaged_or_cleaned_away_is_not_needed(built):
    whole = FinishedBuild.of(OUT)
    request = OUT / "work" / "request.json"
    request.write_bytes(request.read_bytes().replace(b"data", b"dota"))
    damaged = FinishedBuild.of(OUT)
    request.unlink()
    assert damaged == FinishedBuild.of(OUT)
    assert (damaged.plan, damaged.check) == (whole.plan, whole.check)


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": "small"}'])
def test_a_plan_that_no_build_wrote_is_told_by_its_path(built, text):
    (OUT / "plan.json").write_text(text)
    with pytest.raises(EnsembleError, match=r"plan\.json: .* build again, or delete the file"):
        FinishedBuild.of(OUT)
