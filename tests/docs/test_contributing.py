"""CONTRIBUTING.md: its examples do what they say."""

import importlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from ensemble.methods.mixes import MIXES
from ensemble.methods.steps import METHODS
from ensemble.plan import load_recipe
from ensemble.scoring.evaluation import instance_scores
from ensemble.scoring.rules import RULES
from tests.docs.code_blocks import code_blocks, run_block
from tests.support.modules import imported_anew
from tests.support.processes import ROOT

PAGE = ROOT / "CONTRIBUTING.md"
RECIPE = """\
name: example
sources:
  a: {predictions: "{root}/a/{crop}/{class}"}
  b: {predictions: "{root}/b/{crop}/{class}"}
classes:
  mito:
    source: {root_mean_square: {a: 3, b: 1}}
    postprocess: [components, {drop_largest: {count: 2}}]
consistency: none
"""


@pytest.fixture
def examples() -> Iterator[None]:
    """The page's examples, registered while the test lasts."""
    names: dict[str, object] = {}
    with patch.dict(METHODS.by_name), patch.dict(MIXES), patch.dict(RULES):
        for line, code in code_blocks(PAGE):
            run_block(PAGE, line, code, names)
        yield


def test_each_example_is_under_twenty_lines() -> None:
    blocks = [code for _, code in code_blocks(PAGE)]
    assert len(blocks) == 3
    assert all(code.count("\n") < 20 for code in blocks)


@pytest.mark.usefixtures("examples")
def test_a_recipe_can_name_the_method_and_the_mix(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(RECIPE)
    route = load_recipe(path).rules["mito"].route
    assert route is not None
    assert [step.describe() for step in route.steps][1:] == [{"drop_largest": {"count": 2}}]


@pytest.mark.usefixtures("examples")
def test_the_mix_stays_between_its_parts() -> None:
    low, high = np.float32([0.0, 0.2]), np.float32([1.0, 0.2])
    np.testing.assert_allclose(MIXES["root_mean_square"]([low, high], [1, 1]), [0.5**0.5, 0.2], rtol=1e-6)


@pytest.mark.usefixtures("examples")
def test_the_rules_have_a_name_and_forgive_what_they_say() -> None:
    truth = np.zeros((4, 8, 24), np.uint8)
    truth[:, 2:6, 2:6] = 1
    prediction = truth.copy()
    prediction[:, 2:6, 14:18] = 2  # has no match
    new, old = (
        instance_scores(truth, prediction, (8, 8, 8), rules_name=name)["normalized_hausdorff_distance"]
        for name in ("2027-01", "2026-06")
    )
    assert new == 1
    assert isinstance(old, float) and old < 1


def test_a_network_of_monai_is_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((old, new),) = re.findall(r"^-(\w.*)\n\+(\w.*)$", PAGE.read_text(), re.MULTILINE)
    shutil.copytree(ROOT / "registry", tmp_path / "registry")
    module = tmp_path / "registry" / "card.py"
    text = module.read_text()
    assert text.count(f"{old}\n") == 1
    module.write_text(text.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    with imported_anew("registry"):
        edited = importlib.import_module("registry")
        assert Path(edited.__file__).is_relative_to(tmp_path)
        card = edited.Card(
            name="own", architecture="AttentionUnet", arguments={"channels": [4, 8], "strides": [2]}, classes=("mito",),
            voxel_size_nm=8, patch_voxels=16, activation="sigmoid",
        )  # fmt: skip
        assert type(edited.new_network(card)).__name__ == "AttentionUnet"
