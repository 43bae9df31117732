"""What builds leave behind for the next ones, and which of it nothing goes on from any more."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ensemble.build.workspace import Workspace
from ensemble.plan import predictions_of
from ensemble.predict import SharedPredictions
from ensemble.support import EnsembleError


def leftovers(out: Path, *, everything: bool = False) -> dict[Path, int]:
    """What the recipe as it was built last in ``out`` no longer needs, with its bytes on disk.

    That is under ``out``, and stored predictions that no build needs which shares them. ``everything``: also what a
    changed or interrupted build would go on from; results stay. ``out`` may also be a folder of builds, or of stored
    predictions; then it is only these. Raises EnsembleError when it is none of them.
    """
    shared, work = _places(out)
    paths = [] if work is None else work.unneeded()
    if work is not None and everything:
        paths = sorted(path for path in work.root.iterdir() if path.name != "lock")
    unneeded = shared.unneeded(without=work.root if work is not None and everything else None)
    return {path: _size(path) for path in (*paths, *unneeded)}


def free(out: Path, paths: Iterable[Path]) -> None:
    """Remove them, but no prediction that a build needs by now. Raises EnsembleError while a build is at work there."""
    shared, work = _places(out)
    paths = list(paths)
    if work is not None:
        with work.alone():
            for path in (path for path in paths if path.is_relative_to(work.root)):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    shared.free(path for path in paths if path.is_relative_to(shared.folder))


def _places(out: Path) -> tuple[SharedPredictions, Workspace | None]:
    """The stored predictions, and what a build left where ``out`` is a build's."""
    out = Path(out)
    if (out / "work").is_dir():
        return SharedPredictions(predictions_of(out)), Workspace(out / "work")
    for folder in (out / "predictions", out):
        if (shared := SharedPredictions(folder)).is_there:
            return shared, None
    raise EnsembleError(
        f"{out}: no build was made here; give the folder that was a build's --out, or that holds builds"
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)
