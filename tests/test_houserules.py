"""The house rules of the tests: every module has a test file of its own, which imports it."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.processes import ROOT


def modules() -> list[tuple[str, Path]]:
    """Every module of the packages by its name, with the test file that is its own."""
    found = [*ROOT.glob("ensemble/*/*.py"), *ROOT.glob("registry/*.py")]
    named = [path.relative_to(ROOT) for path in found if not path.stem.startswith("__")]
    return sorted(
        (".".join(path.with_suffix("").parts), ROOT / "tests" / path.parent.name / f"test_{path.stem}.py")
        for path in named
    )


def imported(test_file: Path) -> set[str]:
    """Modules that a file imports, or names of: "ensemble.core.grid" and "ensemble.core.grid.Grid"."""
    names = set()
    for node in ast.walk(ast.parse(test_file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_has_a_test_file_of_its_own():
    lacking = [f"{name}: write {own.relative_to(ROOT)}" for name, own in modules() if not own.exists()]
    assert len(modules()) > 100
    assert lacking == []


def test_a_modules_own_test_file_imports_it():
    strangers = [
        f"{own.relative_to(ROOT)} imports nothing of {name}"
        for name, own in modules()
        if own.exists() and name not in imported(own)
    ]
    assert strangers == []


def test_pytest_leaves_no_folder_of_tests_out(pytestconfig: pytest.Config):
    """By its own settings it leaves out folders called build."""
    patterns = pytestconfig.getini("norecursedirs")
    names = {part for file in ROOT.glob("tests/**/test_*.py") for part in file.parent.relative_to(ROOT).parts}
    assert len(names) > 15
    assert [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)] == []
