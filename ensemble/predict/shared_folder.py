"""The folder of stored predictions that builds share: who needs which of them, and what nobody needs.

CACHEDIR.TAG                      says that all of it can be made anew
KEY.zarr, KEY.planes, KEY.lock    a prediction, how far it is, and its claim (see ``prediction_store``)
users/                            a file for each folder that uses it, wherever that lies
lock                              held while needs are noted, or predictions taken away

Who uses the folder first notes in its own what it needs, so nothing is taken away that somebody is about to use.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.predict.prediction_store import claim, shared_key
from ensemble.support import (
    PARTIAL,
    EnsembleError,
    digest,
    in_turn,
    read_sealed,
    refuse_links,
    texts_in,
    write_sealed,
    write_text,
)

NEEDED, SURVEYED = "needed.json", "surveyed.json"
"""What a build goes on from, and what a tuning that is under way looks at besides: files of a work folder."""

_KEY = re.compile(r"([0-9a-f]{64}-[0-9a-f]{16})\.")
_TORN = (PARTIAL, ".partial")
"""How names of torn files end: ours, and zarr's."""
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# What networks predicted, shared by the builds beside this folder; `ensemble clean` frees what none of them needs.
"""


@dataclass(frozen=True)
class SharedPredictions:
    """The predictions in a folder."""

    folder: Path

    @property
    def is_there(self) -> bool:
        return (self.folder / _TAG).is_file()

    def need(self, note: Path, keys: Iterable[str], others: Mapping[str, Any] | None = None) -> None:
        """Note in ``note``, a file of a work folder, the keys of what is needed there, and ``others`` beside them.

        Raises EnsembleError for a folder that holds something else.
        """
        self._begin()
        with in_turn(self.folder / "lock"):
            refuse_links(self.folder / "users")
            write_sealed(note, {"predictions": sorted(keys), **(others or {})})
            where = os.path.relpath(note.resolve(), self.folder.resolve())
            write_sealed(self.folder / "users" / f"{digest(where)[:16]}.json", where)

    def _begin(self) -> None:
        if not self.is_there:
            if self.folder.is_dir() and any(path.name != "lock" for path in self.folder.iterdir()):
                raise EnsembleError(
                    f"{self.folder}: stored predictions would be kept here, but it holds something else; "
                    "name another folder with --cache"
                )
            write_text(self.folder / _TAG, _TAG_TEXT)

    # -- what nobody needs

    def unneeded(self, *, without: Path | None = None) -> list[Path]:
        """Files and folders that no build needs, or only the one whose work folder is ``without``; torn ones too."""
        needed = set(self._needed(without))
        entries = sorted(path for path in self.folder.glob("*") if _KEY.match(path.name) and path.suffix != ".lock")
        unused = [path for path in entries if not self._serves(_key_of(path), needed)]
        half = (file for kind in _TORN for at in ("", "*.zarr/") for file in self.folder.glob(f"{at}*{kind}"))
        torn = [file for file in sorted(half) if not {file, file.parent} & {*unused} and self._is_idle(self._key(file))]
        return [*unused, *torn]

    def _key(self, path: Path) -> str:
        return _key_of(path if path.parent == self.folder else path.parent)

    def _is_idle(self, key: str) -> bool:
        """Whether nobody computes a prediction now."""
        with claim(self.folder, key) as free:
            return free

    def _needed(self, without: Path | None) -> Iterator[str]:
        """The keys that are noted, by the folders beside this one and by those that are named under users/."""
        beside = (note for name in (NEEDED, SURVEYED) for note in self.folder.resolve().parent.glob(f"*/work/{name}"))
        for note in {*beside, *self._users().values()}:
            noted = read_sealed(note) if without is None or note.parent != without.resolve() else None
            yield from texts_in(noted, "predictions")

    def _users(self) -> dict[Path, Path]:
        """The files under users/, and the notes that they name."""
        said = {user: read_sealed(user) for user in (self.folder / "users").glob("*.json")}
        here = self.folder.resolve()
        return {u: Path(os.path.normpath(here / where)) for u, where in said.items() if isinstance(where, str)}

    def _serves(self, key: str, needed: Collection[str]) -> bool:
        """Whether one of the needed keys means this prediction, or has none of its own and can do with this."""
        if key in needed:
            return True
        others = (other for other in needed if shared_key(other) == shared_key(key))
        return any(not (self.folder / f"{other}.planes").exists() for other in others)

    def free(self, paths: Iterable[Path]) -> None:
        """Take away those of the paths that nobody needs now, and that nobody is at work on.

        Raises EnsembleError where links lie here.
        """
        wanted = set(paths)
        refuse_links(*self.folder.glob("*"))
        with in_turn(self.folder / "lock"):
            aside = [self._aside(path) for path in self.unneeded() if path in wanted]
            gone = [user for user, note in self._users().items() if not note.exists()]
            for file in (*gone, *self._idle_locks()):
                file.unlink(missing_ok=True)
        for path in aside:
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)

    def _idle_locks(self) -> list[Path]:
        """Claims of what is not here and nobody needs: who needs a prediction has noted that before it claims it."""
        needed = set(self._needed(None))
        locks = {_key_of(lock): lock for lock in self.folder.glob("*.lock") if _KEY.match(lock.name)}
        return [lock for key, lock in locks.items() if key not in needed and not (self.folder / f"{key}.zarr").exists()]

    def _aside(self, path: Path) -> Path | None:
        """Where it is now, under the name of a torn file; None where somebody is at work on it."""
        key = self._key(path)
        with claim(self.folder, key) as free:
            if not free:
                return None
            if path.name.endswith(_TORN):
                return path
            os.replace(path, aside := path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}"))
        return aside


def _key_of(path: Path) -> str:
    return path.name.partition(".")[0]
