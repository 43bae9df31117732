"""The pages: what they point at is there, and the picture of the folders is the import contract."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import ensemble
from tests.support.processes import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DESIGN = (ROOT / "docs" / "design.md").read_text()
LAYERS = next(
    contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_named_are_there(page: Path) -> None:
    paths = re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "ensemble" / path).exists()] == []


def test_the_picture_is_the_import_contract() -> None:
    drawn = re.findall(r"(\d) · ([^\"]+)\"\]", DESIGN)
    lines = {int(number): {name.strip(" /") for name in names.split("·")} for number, names in drawn}
    assert [lines[number] for number in range(8, 0, -1)] == [
        {name.strip().removeprefix("ensemble.") for name in layer.split("|")} - {"front_door"} for layer in LAYERS
    ]


def test_every_folder_has_its_paragraph_and_what_it_names_is_public() -> None:
    folders = [path.parent.name for path in (ROOT / "ensemble").glob("*/__init__.py")]
    for folder in folders:
        number, paragraph = re.search(
            rf"^\*\*{folder}\*\* \((\d)\) (.+?)\n\n", DESIGN, re.MULTILINE | re.DOTALL
        ).groups()
        assert folder in re.search(rf"{number} · ([^\"]+)", DESIGN)[1]
        public = importlib.import_module(f"ensemble.{folder}").__all__
        named = [name for name in re.findall(r"`([A-Za-z_]+)`", paragraph) if name not in [*folders, "registry"]]
        assert [name for name in named if name not in public] == []
    assert len(folders) == 16


def test_the_version_is_told_once_and_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == ensemble.__version__
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= {*cited}
    assert f"## {ensemble.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_run_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    tools = {line.replace("$(BIN)/", "").split(" .")[0].strip() for line in lint.splitlines()}
    run = {re.sub(" --force-exclude", "", hook["entry"].removeprefix(".venv/bin/")) for hook in hooks}
    assert run == tools
    assert {hook["language"] for hook in hooks} == {"system"}
