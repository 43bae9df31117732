"""``import ensemble``: quick, and its verbs are there whoever imported what before."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ensemble
from ensemble.core import Box
from ensemble.support import SubmissionError
from tests.support import small_submission
from tests.support.processes import ROOT


def run(code: str, environment: dict[str, str] | None = None) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, env=environment
    )
    return done.stdout.strip()


def test_it_loads_no_library() -> None:
    heavy = run(
        "import sys, ensemble; print(*{'torch', 'numpy', 'mlflow', 'zarr', 'pydantic', 'yaml'} & {*sys.modules})"
    )
    assert heavy == ""


@pytest.mark.parametrize("library", ["ensemble", "registry"])
def test_who_imports_it_sends_nothing_about_their_use_unless_they_say_so(library) -> None:
    """As at somebody's desk: MLflow is silent anyway where it sees tests or a CI run."""
    desk = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
    asked = "from mlflow.telemetry import get_telemetry_client as client; print(client())"
    assert run(f"import {library}; {asked}", desk) == "None"
    setting = "MLFLOW_DISABLE_TELEMETRY"
    assert run(f"import os, {library}; print(os.environ['{setting}'])", {**desk, setting: "false"}) == "false"


def test_planning_checking_and_opening_wait_for_neither_torch_nor_mlflow() -> None:
    verbs = "ensemble.plan, ensemble.check, ensemble.score, ensemble.open, ensemble.load_recipe, ensemble.Registry"
    assert run(f"import sys, ensemble; {verbs}; print(*{{'torch', 'mlflow'}} & {{*sys.modules}})") == ""


WAYS = (
    "import ensemble; verb = ensemble.{folder}",
    "from ensemble import {folder} as verb",
    "import ensemble.{folder}; verb = ensemble.{folder}",
    "from ensemble.{folder} import {name}; from ensemble import {folder} as verb",
    "import ensemble.{folder}.{module} as inside; from ensemble import {folder} as verb",
)
"""What may have been imported before: the verb, by name, the folder, a name of it, a module of it."""
FOLDER = """
forget("ensemble", "registry")
{way}
from ensemble.{folder} import {name}
import ensemble, ensemble.{folder}.{module} as inside
print({name}.__name__, inside.__name__)
for function in (verb, ensemble.{folder}):
    try:
        function()
    except TypeError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_name_that_is_verb_and_folder_is_both_in_any_order() -> None:
    inside = {"plan": ("budget", "Budget"), "build": ("workspace", "Built"), "tune": ("space", "TuningTask")}
    code = "".join(
        FOLDER.replace("{way}", way).format(folder=folder, module=module, name=name)
        for way in WAYS
        for folder, (module, name) in inside.items()
    )
    lacking = "missing 1 required positional argument"
    assert run(f"from tests.support.modules import forget\n{code}").splitlines() == [
        *("Budget ensemble.plan.budget", *[f"plan() {lacking}: 'request'"] * 2),
        *("Built ensemble.build.workspace", *[f"build() {lacking}: 'request'"] * 2),
        *("TuningTask ensemble.tune.space", *[f"tune() {lacking}: 'task'"] * 2),
    ] * len(WAYS)


def test_all_names_are_those_of_the_stub() -> None:
    for name in ensemble.__all__:
        assert getattr(ensemble, name) is not None
    assert {"open", "load_recipe", "plan", "build", "check", "score", "tune", "Registry"} <= {*ensemble.__all__}


@pytest.fixture
def opened(tmp_path: Path) -> ensemble.OpenSubmission:
    return ensemble.open(small_submission.write(tmp_path / "submission"))


def test_an_array_comes_with_its_grid_and_keeps_its_dtype(opened: ensemble.OpenSubmission) -> None:
    mito = opened["crop557/mito"]
    expected = small_submission.good()["mito"]
    assert mito.grid == small_submission.GRID
    assert mito.array.dtype == expected.dtype
    np.testing.assert_array_equal(mito.array, expected)
    np.testing.assert_array_equal(mito.read(Box((9, 1, 1), (12, 4, 5))), expected[9:12, 1:4, 1:5])


def test_the_places_are_those_of_the_arrays(opened: ensemble.OpenSubmission) -> None:
    assert len(opened) == 6
    assert [place for place in opened if place.startswith("crop984")] == ["crop984/nuc"]
    assert "crop984/nuc" in opened
    assert "crop984/mito" not in opened


@pytest.mark.parametrize(
    ("place", "hint"),
    [("crop557/mitos", "did you mean 'crop557/mito'?"), ("mito", "there is no such array"), ("crop9/x/y", "no such")],
)
def test_what_is_not_there_is_one_line(opened: ensemble.OpenSubmission, place: str, hint: str) -> None:
    with pytest.raises(SubmissionError, match=hint.replace("?", r"\?")) as error:
        opened[place]
    assert "\n" not in str(error.value)
    assert place in str(error.value)


def test_a_box_beyond_the_array_is_refused(opened: ensemble.OpenSubmission) -> None:
    with pytest.raises(ValueError, match="reaches beyond"):
        opened["crop984/nuc"].read(Box((0, 0, 0), (4, 5, 7)))


def test_a_build_folder_stands_for_its_zip(tmp_path: Path) -> None:
    small_submission.zipped(small_submission.write(tmp_path / "submission"))
    assert ensemble.open(tmp_path).submission.members.place == tmp_path / "submission.zip"
    assert not ensemble.check(tmp_path).ok  # the official manifest's other crops are missing


def test_what_is_no_submission_is_told(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="not a submission"):
        ensemble.open(tmp_path)
    with pytest.raises(SubmissionError, match="cannot read"):
        ensemble.open(tmp_path / "nowhere.zip")
