"""What a build keeps under OUT/work to go on from: finished groups of classes, begun ones, scratch arrays.

submission.zarr/  the arrays as they will be packed
assembled/        a file per crop: which of its arrays are finished, and what they were made from
scratch/          a folder per crop that is begun, with its journal, and in it one of all arrays that it writes
state.json        how far the whole is
needed.json       what the recipe as it was built last goes on from, stored predictions too

Everything here carries a checksum: what is not as it was written is made anew, never used.
"""

import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ensemble.core import Target
from ensemble.decode import GroupOutcome
from ensemble.predict import NEEDED, SharedPredictions
from ensemble.storage import ChunkedArray, scratch_array
from ensemble.submission import create_array
from ensemble.support import (
    PARTIAL,
    Journal,
    VolumeError,
    alone_with,
    read_sealed,
    refuse_links,
    texts_in,
    write_sealed,
)


@dataclass
class CropState:
    """Of a crop's finished arrays: by class the key of its group and a checksum of its files; by key the outcome."""

    keys: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, int | None] = field(default_factory=dict)
    outcomes: dict[str, GroupOutcome] = field(default_factory=dict)


_CROP_STATE = TypeAdapter(CropState)


@dataclass(frozen=True)
class Workspace:
    """The folder OUT/work."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "submission.zarr"

    def scratch(self, target: Target) -> Path:
        return self.root / "scratch" / target.crop

    def alone(self) -> AbstractContextManager[None]:
        """While this lasts no other process works here. Raises EnsembleError when one does, or for links in here."""
        refuse_links(self.root)
        return alone_with(
            self.root / "lock",
            f"{self.root.parent}: another build is at work here; wait for it, or use another --out",
        )

    # -- what is needed

    def need(
        self, shared: SharedPredictions, keys: Iterable[str], groups: Iterable[str], arrays: Iterable[str]
    ) -> None:
        """Note the keys of the predictions and of the groups, and the arrays ("crop557/mito"), that are in use."""
        shared.need(self.root / NEEDED, keys, {"groups": sorted(groups), "arrays": sorted(arrays)})

    def unneeded(self) -> list[Path]:
        """Files and folders here that the recipe as it was built last has no use for."""
        needed = read_sealed(self.root / NEEDED)
        in_use = {what: frozenset(texts_in(needed, what)) for what in ("groups", "arrays")}
        unused = [
            array
            for array in sorted(self.store.glob("crop*/*"))
            if array.is_dir() and f"{array.parent.name}/{array.name}" not in in_use["arrays"]
        ]
        for folder in sorted((self.root / "scratch").glob("*")):
            noted = Journal.read(folder / "journal").get("key", [None])
            if noted[0] not in in_use["groups"]:
                unused.append(folder)
        torn = sorted(self.store.glob(f"crop*/*/*{PARTIAL}"))
        return [*unused, *(path for path in torn if not any(path.is_relative_to(u) for u in unused))]

    # -- groups of classes

    def finished(self, target: Target, group: Sequence[str], key: str) -> GroupOutcome | None:
        """The outcome of a group that was made from what ``key`` says and is still there in whole."""
        state = self._state(target)
        for name in group:
            if state.keys.get(name) != key or state.checksums.get(name) != self._checksum(target, name):
                return None
        return state.outcomes.get(key)

    def begin(self, target: Target, group: Sequence[str], key: str) -> Journal:
        """The journal of a group, as far as it was begun with the same key; else everything starts anew."""
        state = self._state(target)
        if any(name in state.keys for name in group):
            for name in group:
                state.keys.pop(name, None)
            self._keep_state(target, state)
        folder = self.scratch(target)
        path = folder / "journal"
        if path.exists():
            begun = Journal.open(path)
            if begun.noted("key") == [key]:
                return begun
            begun.close()
        self.drop(target)
        folder.mkdir(parents=True)
        for name in group:
            shutil.rmtree(self.store / target.group / name, ignore_errors=True)
        journal = Journal.open(path)
        journal.note("run", uuid.uuid4().hex)  # into that of an earlier one workers that it gave up may still write
        journal.note("key", key)
        return journal

    def drop(self, target: Target) -> None:
        """Forget what of a crop was begun."""
        shutil.rmtree(self.scratch(target), ignore_errors=True)

    def finish(self, target: Target, group: Sequence[str], key: str, outcome: GroupOutcome) -> None:
        """Put the group's arrays where they belong, note that it is finished, and drop what it needed on the way."""
        store = self.store / target.group
        store.mkdir(parents=True, exist_ok=True)
        for run in Journal.read(self.scratch(target) / "journal").get("run", []):
            for name in group:
                with suppress(FileNotFoundError):  # put there when this was last interrupted
                    os.replace(self._written(target, run) / target.group / name, store / name)
        state = self._state(target)
        for name in group:
            state.keys[name] = key
            state.checksums[name] = self._checksum(target, name)
            if state.checksums[name] is None:
                self.drop(target)
                raise VolumeError(f"{store / name}: vanished while it was made; run the same command again")
        state.outcomes[key] = outcome
        state.outcomes = {k: v for k, v in state.outcomes.items() if k in state.keys.values()}
        self._keep_state(target, state)
        self.drop(target)

    def forget(self, crop: str) -> None:
        """Have a crop assembled anew."""
        (self.root / "assembled" / f"{crop}.json").unlink(missing_ok=True)

    def _state(self, target: Target) -> CropState:
        state = read_sealed(self.root / "assembled" / f"{target.crop}.json")
        try:
            return _CROP_STATE.validate_python(state)
        except ValidationError:
            return CropState()

    def _keep_state(self, target: Target, state: CropState) -> None:
        write_sealed(self.root / "assembled" / f"{target.crop}.json", asdict(state))

    def _checksum(self, target: Target, name: str) -> int | None:
        """Of the names and the bytes of an array's files, torn ones left out; None where there is no such folder."""
        folder, checksum = self.store / target.group / name, 0
        try:
            for file in sorted(file for file in os.listdir(folder) if not file.endswith(PARTIAL)):
                checksum = zlib.crc32((folder / file).read_bytes(), zlib.crc32(f"{file}/".encode(), checksum))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return checksum

    # -- arrays

    def array(self, target: Target, run: str, name: str, dtype: np.dtype[Any]) -> ChunkedArray:
        """What becomes a class's array when the group is finished, as far as this run of the assembly wrote it."""
        return create_array(self._written(target, run), target, name, dtype, keep=True)

    def temporary(self, target: Target, run: str, name: str, dtype: np.dtype[Any]) -> ChunkedArray:
        """A scratch array of a run, as it was left; zeros where nothing was."""
        return scratch_array(self.scratch(target) / run, target, name, dtype)

    def _written(self, target: Target, run: str) -> Path:
        return self.scratch(target) / run / "written"
