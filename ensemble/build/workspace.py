"""What a build keeps under OUT/work to go on from: finished groups of classes, begun ones, scratch arrays.

predictions/      what networks predicted, by content (see ``predictions``)
submission.zarr/  the arrays as they will be packed
assembled/        a file per crop: which of its arrays are finished, and what they were made from
scratch/          a folder per crop that is begun, with its journal
state.json        how far the whole is
needed.json       what the recipe as it was built last goes on from
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core.manifest import Target
from ensemble.storage.chunked_array import ChunkedArray, scratch_array
from ensemble.submission import writer as submission
from ensemble.support.files import alone_with, read_json, write_json
from ensemble.support.journal import Journal


@dataclass(frozen=True)
class Workspace:
    """The folder OUT/work."""

    root: Path

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def store(self) -> Path:
        return self.root / "submission.zarr"

    def scratch(self, target: Target) -> Path:
        return self.root / "scratch" / target.crop

    def alone(self) -> AbstractContextManager[None]:
        """While this lasts no other process works here. Raises EnsembleError when one does."""
        return alone_with(
            self.root / "lock",
            f"{self.root.parent}: another build is at work here; wait for it, or use another --out",
        )

    # -- what is needed

    def need(self, predictions: Iterable[str], groups: Iterable[str], arrays: Iterable[str]) -> None:
        """Note the keys of the predictions and of the groups, and the arrays ("crop557/mito"), that are in use."""
        write_json(
            self.root / "needed.json",
            {"predictions": sorted(predictions), "groups": sorted(groups), "arrays": sorted(arrays)},
        )

    def unneeded(self) -> list[Path]:
        """Files and folders that the recipe as it was built last has no use for."""
        needed = read_json(self.root / "needed.json") or {}
        known = {what: frozenset(needed.get(what, ())) for what in ("predictions", "groups", "arrays")}
        found = [p for p in sorted(self.predictions.glob("*")) if not self._serves(p, known["predictions"])]
        for array in sorted(self.store.glob("crop*/*")):
            if array.is_dir() and f"{array.parent.name}/{array.name}" not in known["arrays"]:
                found.append(array)
        for folder in sorted((self.root / "scratch").glob("*")):
            journal = folder / "journal"
            key = Journal.read(journal).get("key", [None])[0] if journal.exists() else None
            if key not in known["groups"]:
                found.append(folder)
        inside = (*self.predictions.glob("*/*.part"), *self.store.glob("crop*/*/*.part"))
        return [*found, *sorted(p for p in inside if not any(p.is_relative_to(f) for f in found))]

    def _serves(self, prediction: Path, needed: frozenset[str]) -> bool:
        """Whether one of the keys means this array, or has none of its own and can do with this."""
        key = prediction.name.partition(".")[0]
        if key in needed:
            return True
        others = [k for k in needed if k.partition("-")[0] == key.partition("-")[0]]
        return any(not (self.predictions / f"{k}.planes").exists() for k in others)

    # -- groups of classes

    def finished(self, target: Target, group: Sequence[str], key: str) -> dict[str, Any] | None:
        """The outcome of a group that was made from what ``key`` says and is still there in whole."""
        state = self._state(target)
        for name in group:
            if state["keys"].get(name) != key or state["chunks"].get(name) != self._chunks(target, name):
                return None
        return state["outcomes"].get(key)

    def begin(self, target: Target, group: Sequence[str], key: str) -> Journal:
        """The journal of a group, as far as it was begun with the same key; else everything starts anew."""
        state = self._state(target)
        if any(name in state["keys"] for name in group):
            for name in group:
                state["keys"].pop(name, None)
            self._keep_state(target, state)
        folder = self.scratch(target)
        path = folder / "journal"
        begun = Journal.open(path) if path.exists() else None
        if begun is not None:
            if begun.noted("key") == [key]:
                return begun
            begun.close()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        journal = Journal.open(path)
        journal.note("key", key)
        return journal

    def finish(self, target: Target, group: Sequence[str], key: str, outcome: dict[str, Any], journal: Journal) -> None:
        """Note that a group is finished, and drop what it needed on the way."""
        journal.close()
        state = self._state(target)
        for name in group:
            state["keys"][name] = key
            state["chunks"][name] = self._chunks(target, name)
        state["outcomes"][key] = outcome
        state["outcomes"] = {k: v for k, v in state["outcomes"].items() if k in state["keys"].values()}
        self._keep_state(target, state)
        shutil.rmtree(self.scratch(target), ignore_errors=True)

    def forget(self, crop: str) -> None:
        """Have a crop assembled anew."""
        (self.root / "assembled" / f"{crop}.json").unlink(missing_ok=True)

    def _state(self, target: Target) -> dict[str, Any]:
        known = read_json(self.root / "assembled" / f"{target.crop}.json")
        whole = isinstance(known, dict) and set(known) == {"keys", "chunks", "outcomes"}
        return known if whole else {"keys": {}, "chunks": {}, "outcomes": {}}

    def _keep_state(self, target: Target, state: dict[str, Any]) -> None:
        write_json(self.root / "assembled" / f"{target.crop}.json", state)

    def _chunks(self, target: Target, name: str) -> int | None:
        """How many files an array has."""
        try:
            return len(os.listdir(self.store / target.group / name))
        except FileNotFoundError:
            return None

    # -- arrays

    def array(self, target: Target, name: str, dtype: np.dtype, *, keep: bool = False) -> ChunkedArray:
        """The final array of a class, all background; with ``keep`` as it was left."""
        if keep:
            return submission.reopen_array(self.store, target, name)
        return submission.create_array(self.store, target, name, dtype)

    def temporary(self, target: Target, name: str, dtype: np.dtype, *, keep: bool = False) -> ChunkedArray:
        """A scratch array of zeros on the target's grid; with ``keep`` as it was left, if it is there."""
        return scratch_array(self.scratch(target), target, name, dtype, keep=keep)
