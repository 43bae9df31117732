"""Digests by which results are kept: of plain values, of the code that makes them, of the libraries that compute."""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

COMPUTING_LIBRARIES = (
    "bioimage-cpp",
    "connected-components-3d",
    "dynamic-network-architectures",
    "edt",
    "monai",
    "numcodecs",
    "numpy",
    "scikit-image",
    "scipy",
    "torch",
)
"""The libraries whose versions may change a voxel."""

_IMPORT = re.compile(r"^\s*(?:from|import)\s+(ensemble\.\w+|registry)\b", re.MULTILINE)


def digest(value: Any) -> str:
    """A digest of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_digest(package: str) -> str:
    """A digest of every file of a folder of this project, and of all the folders it imports, however far.

    ``package`` is "ensemble.decode", say. It changes with any byte of code or data that may matter, and stays
    with what cannot be reached from there.
    """
    total = hashlib.sha256()
    for name in sorted(_reached(package)):
        folder = _folder(name)
        for file in _files(folder):
            total.update(f"{name}/{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


def library_versions(libraries: Iterable[str] = COMPUTING_LIBRARIES) -> dict[str, str]:
    """What is installed of each."""
    return {name: _version(name) for name in libraries}


@cache  # reading what a library says of itself takes milliseconds, and every array's key asks
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _reached(package: str) -> set[str]:
    """The folder and all that it imports, and they import; folders of other projects are left out."""
    reached: set[str] = set()
    waiting = [package]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            for file in _files(_folder(name)):
                if file.suffix in (".py", ".pyi"):
                    waiting += _IMPORT.findall(file.read_text(encoding="utf-8"))
    return reached


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{package} is no folder of this project")
    return Path(spec.origin).parent


def _files(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc" and not file.name.startswith(".")
    )
