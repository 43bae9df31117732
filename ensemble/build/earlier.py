"""A submission that lies where another is to be: what it was made from, and how it makes room.

A recipe is its file, whatever is edited in it; a selection is the arrays that are asked for. A submission of the same
recipe and selection is replaced as its builder goes along; one of any other only where that is said.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ensemble.core import Target
from ensemble.plan import Request, find_recipe
from ensemble.support import PARTIAL, EnsembleError, RegistryError, digest, load_yaml, replacing

SET_ASIDE = "replaced"
"""The folder beside a submission that keeps what was known of those that it replaced."""

_KEPT = ("lock.yaml", "report.html", "report.json", "scores.json", "plan.json", "check.json", "costs.json")


def made_from(request: Request, targets: Iterable[Target]) -> dict[str, Any]:
    """What a submission is made from, as its lock says it: the recipe's file, relative to ``out``, and the arrays."""
    arrays = sorted(f"{target.group}/{name}" for target in targets for name in target.classes)
    recipe = os.path.relpath(Path(find_recipe(request.recipe)).resolve(), request.out.resolve())
    return {"recipe": recipe, "arrays": len(arrays), "selection": digest(arrays)[:16]}


def refuse_to_replace(request: Request, wanted: dict[str, Any]) -> None:
    """Raises EnsembleError where the submission of another recipe or selection lies in the way."""
    if request.zip.exists() and (others := _otherwise_made(request, wanted)):
        raise EnsembleError(
            f"{request.zip}: {others}; give another --out, or say --overwrite: then its lock and report are kept in "
            f"{request.out / SET_ASIDE}"
        )


def make_room(request: Request, wanted: dict[str, Any]) -> Path | None:
    """Where the submission of another recipe or selection is set aside; None where none lay in the way.

    Raises EnsembleError where one does, and nothing said that it may be replaced.
    """
    if not request.overwrite:
        refuse_to_replace(request, wanted)
    return set_aside(request, wanted)


def set_aside(request: Request, wanted: dict[str, Any]) -> Path | None:
    """Where the submission of another recipe or selection is now, with lock and report; None where none lay there."""
    if not request.zip.exists() or not _otherwise_made(request, wanted):
        return None
    folder = request.out / SET_ASIDE
    number = 1 + max((int(path.name.partition("-")[0]) for path in _numbered(folder)), default=0)
    recipe = _lock(request.lock).get("recipe")
    name = recipe.get("name") if isinstance(recipe, dict) else None
    known = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name)
    place = folder / f"{number}-{name if known else 'unknown'}"
    there = [request.out / name for name in _KEPT if (request.out / name).exists()]
    with replacing(place) as partial:
        partial.mkdir()
        for path in there:
            shutil.copy2(path, partial)
    os.replace(request.zip, place / request.zip.name)
    for path in there:
        path.unlink()
    return place


def drop_replaced(request: Request) -> None:
    """Take away the zips that were set aside, now that there is a newer; lock and report stay."""
    for path in _numbered(request.out / SET_ASIDE):
        (path / request.zip.name).unlink(missing_ok=True)


def _numbered(folder: Path) -> list[Path]:
    paths = folder.glob("*-*") if folder.is_dir() else ()
    return [path for path in paths if path.name.partition("-")[0].isdigit() and not path.name.endswith(PARTIAL)]


def _otherwise_made(request: Request, wanted: dict[str, Any]) -> str:
    """What else a submission was made from; "" where it was the same."""
    known = _lock(request.lock).get("made_from")
    if not isinstance(known, dict):
        return "nothing beside it says what it was made from"
    if known.get("recipe") != wanted["recipe"]:
        return f"was made from {os.path.normpath(request.out / str(known.get('recipe')))}, another recipe"
    if known.get("selection") != wanted["selection"]:
        return f"holds another selection of arrays, {known.get('arrays')} where {wanted['arrays']} are asked for"
    return ""


def _lock(path: Path) -> dict[str, Any]:
    lock = load_yaml(path, RegistryError)[0] if path.exists() else None
    return lock if isinstance(lock, dict) else {}
