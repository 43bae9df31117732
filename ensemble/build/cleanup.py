"""What a build leaves behind for the next one, and which of it nothing goes on from any more."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ensemble.build.workspace import Workspace
from ensemble.support import EnsembleError


def leftovers(out: Path, *, everything: bool = False) -> dict[Path, int]:
    """What under ``out`` the recipe as it was built last no longer needs, with its bytes on disk.

    ``everything``: also what a changed or interrupted build would go on from; results stay. Raises EnsembleError
    when nothing was built there.
    """
    work = _workspace(out)
    paths = sorted(p for p in work.root.iterdir() if p.name != "lock") if everything else work.unneeded()
    return {path: _size(path) for path in paths}


def free(out: Path, paths: Iterable[Path]) -> None:
    """Remove them. Raises EnsembleError while a build is at work there."""
    with _workspace(out).alone():
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _workspace(out: Path) -> Workspace:
    work = Workspace(Path(out) / "work")
    if not work.root.is_dir():
        raise EnsembleError(f"{out}: no build was made here; give the folder that was a build's --out")
    return work


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)
