"""Files of EM copied from a bucket into a folder, laid out as there: for machines that reach no network."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.core import Box
from ensemble.storage.em_pyramids import EM
from ensemble.storage.listing import size_bytes, state_of
from ensemble.storage.nodes import remote_store, store_behind
from ensemble.storage.object_stores import CONCURRENCY, Remote, asked
from ensemble.storage.opening import Pyramid
from ensemble.support import Journal, Progress, VolumeError, alone_with, counted, duration, in_threads, replacing

if TYPE_CHECKING:
    from ensemble.storage.remote_store import RemoteStore

METADATA = (".zarray", ".zattrs", ".zgroup", "zarr.json")

_JOURNAL, _LOCK = "fetched.journal", "fetched.lock"
_TIMED = 64
"""Files that are fetched before it is said how long all of them take."""


@dataclass(frozen=True)
class RemoteFile:
    """A file in a bucket, in which ``state`` it is there, and ``name``, its place under the root of the data."""

    key: str
    name: str
    state: str

    @property
    def bytes(self) -> int:
        return size_bytes(self.state)

    @property
    def is_metadata(self) -> bool:
        return self.name.rpartition("/")[2] in METADATA


@dataclass(frozen=True)
class EMFiles:
    """Files of EM in a bucket, to be copied. An array that is not copied in whole cannot be opened."""

    remote: Remote
    files: tuple[RemoteFile, ...]

    @classmethod
    def under(cls, em: EM, boxes: Mapping[tuple[str, int], Sequence[Box]]) -> "EMFiles":
        """The chunks under boxes of levels, by data set and number of the level, and all metadata of their pyramids.

        Raises VolumeError where the EM lies on this machine, and where the bucket does not answer.
        """
        datasets = {dataset: em.pyramid(dataset) for dataset, _ in boxes}
        if any(store_behind(pyramid.levels[0].array) is None for pyramid in datasets.values()):
            raise VolumeError(f"{em.root}: it lies on this machine already; name a URL with --data")
        root = remote_store(em.root)
        names = dict.fromkeys(name for pyramid in datasets.values() for name in _metadata(pyramid, em.root))
        found = {root.key(name): state for name, state in zip(names, root.states(list(names)), strict=True) if state}
        for (dataset, level), of_level in boxes.items():
            for box in of_level:
                found |= datasets[dataset].levels[level].remote_files(box)
        files = [RemoteFile(key, _name(root, key), state) for key, state in found.items()]
        return cls(root.remote, tuple(sorted(files, key=lambda file: file.name)))

    def fetch(self, to: Path, progress: Progress) -> int:
        """How many files were copied under a folder; those that were copied before, as they are in the bucket, are not.

        How much it is, and how long it takes, is said first. Each file is there in whole or not at all. Raises
        VolumeError where one cannot be copied, and where there is no room for all.
        """
        to.mkdir(parents=True, exist_ok=True)
        with alone_with(to / _LOCK, f"{to}: another process fetches into it; wait until it has finished"):
            return self._fetch(to, progress)

    def _fetch(self, to: Path, progress: Progress) -> int:
        journal = Journal.open(to / _JOURNAL)
        try:
            copied = dict(journal.noted("file"))
            lacking = [file for file in self.files if not _is_there(to / file.name, file, copied.get(file.name))]
            total = sum(file.bytes for file in lacking)
            _check_room(to, total)
            kept = counted(len(self.files) - len(lacking), "file is", "files are")
            progress.say(f"to fetch: {counted(len(lacking), 'file')}, {_in_words(total)}; {kept} there already")
            progress.stage("fetch", max(total, 1))
            began, done = time.monotonic(), 0
            for number, file in enumerate(self._copied(lacking, to), start=1):
                journal.note("file", [file.name, file.state])
                done += file.bytes
                progress.at(done, file.name)
                if number == _TIMED:
                    left = (time.monotonic() - began) * (total - done) / max(done, 1)
                    progress.say(f"about {duration(left)} from here, by the first {_TIMED} files")
            return len(lacking)
        finally:
            journal.close()

    def _copied(self, files: Sequence[RemoteFile], to: Path) -> Iterator[RemoteFile]:
        """The files, each once it was copied; no metadata before all chunks were."""
        for is_metadata in (False, True):
            part = [file for file in files if file.is_metadata == is_metadata]
            yield from in_threads(CONCURRENCY, lambda file: self._copy(file, to), part)

    def _copy(self, file: RemoteFile, to: Path) -> RemoteFile:
        url = f"{self.remote.root}/{file.key}"
        answer = asked(url, lambda: self.remote.store.get(file.key))
        if state_of(answer.meta) != file.state:
            raise VolumeError(f"{url}: it was changed while it was fetched; run the same command again")
        data = asked(url, answer.bytes)
        with replacing(to / file.name) as partial:
            partial.write_bytes(data)
        return file


def _name(root: "RemoteStore", key: str) -> str:
    """A file's place under the root. Raises VolumeError for one outside of it, where metadata name such."""
    beneath = root.key("")
    name = key.removeprefix(beneath)
    if not key.startswith(beneath) or ".." in name.split("/"):
        raise VolumeError(f"{root.remote.root}/{key}: its metadata lead out of the folder of the data; do not use it")
    return name


def _metadata(pyramid: Pyramid, root: str) -> list[str]:
    """Names under the root of what a pyramid's metadata may lie in, and those of the groups around it."""
    places = [place.removeprefix(root.rstrip("/")).strip("/") for place in (pyramid.place, *_places(pyramid))]
    parts = places[0].split("/")
    around = ["/".join(parts[:depth]) for depth in range(2, len(parts))]
    return [f"{place}/{name}" for place in (*around, *places) for name in METADATA]


def _places(pyramid: Pyramid) -> list[str]:
    return [level.place for level in pyramid.levels]


def _is_there(path: Path, file: RemoteFile, copied: str | None) -> bool:
    try:
        return copied == file.state and path.stat().st_size == file.bytes
    except OSError:
        return False


def _check_room(to: Path, total_bytes: int) -> None:
    free = shutil.disk_usage(to).free
    if total_bytes > free:
        raise VolumeError(f"{to}: {_in_words(total_bytes)} to fetch, {_in_words(free)} free; name another disk in --to")


def _in_words(count_bytes: int) -> str:
    return f"{count_bytes / 2**30:.1f} GiB" if count_bytes >= 2**30 else f"{count_bytes / 2**20:.1f} MiB"
