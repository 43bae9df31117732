"""Chunks that were read over a network, kept on this machine's disk for the next build that reads them.

Any number of processes share the folder. A file is there in whole or not at all, carries a checksum, and is named by
what it is a copy of, the ETag included: what changed in the bucket is another file. Which was used last is told by the
files' times; the oldest leave first.
"""

import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ensemble.support import EnsembleError, cache_folder, held_if_free, replacing

DEFAULT_EM_CACHE_BYTES = 20 << 30

_SEAL_BYTES = 4
_LOOKS_PER_LIMIT = 16
"""After a share of so much of the limit was written, a process looks at what is there in all."""
_KEPT = 0.9
"""Of the limit, what is left when the oldest leave."""
_MOST_OF_FREE = 0.5
"""Of what is free on the disk, how much more may be taken."""


@dataclass
class _Written:
    """Bytes that this process wrote since it last looked at what is there in all."""

    bytes: float = float("inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class ChunkCache:
    """Copies of chunks under ``folder``, up to ``limit_bytes`` and what is written meanwhile, a sixteenth a process."""

    folder: Path
    limit_bytes: int
    _written: _Written = field(default_factory=_Written, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["ChunkCache"], tuple[Path, int]]:
        return ChunkCache, (self.folder, self.limit_bytes)

    def get(self, name: str) -> bytes | None:
        """The chunk kept as ``name``; None where there is none, or any bit of it changed."""
        path = self._path(name)
        try:
            kept = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        data, seal = kept[:-_SEAL_BYTES], kept[-_SEAL_BYTES:]
        if seal != _seal(data):
            with suppress(OSError):
                path.unlink()
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keep a chunk; where there is no room for it, or none may be written, it is not kept."""
        if len(data) > self.limit_bytes // _LOOKS_PER_LIMIT:
            return
        with suppress(OSError), replacing(self._path(name)) as partial, partial.open("wb") as file:
            file.write(data)
            file.write(_seal(data))
        self._make_room(len(data))

    def _path(self, name: str) -> Path:
        digest = sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _make_room(self, written_bytes: int) -> None:
        with self._written.lock:
            self._written.bytes += written_bytes
            if self._written.bytes < self.limit_bytes / _LOOKS_PER_LIMIT:
                return
            self._written.bytes = 0
        with suppress(OSError, EnsembleError), held_if_free(self.folder / "leaving.lock") as mine:
            if mine:
                self._let_oldest_leave()

    def _let_oldest_leave(self) -> None:
        files = sorted(self._files())
        there = sum(size for _, size, _ in files)
        room = min(self.limit_bytes, there + int(_MOST_OF_FREE * shutil.disk_usage(self.folder).free))
        if there <= room * (1 - 1 / _LOOKS_PER_LIMIT):
            return
        for _, size, path in files:
            if there <= room * _KEPT:
                return
            with suppress(OSError):
                path.unlink()
                there -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was last used, its size, and where it is; those half-written too, which somebody left."""
        for folder in self.folder.iterdir():
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            yield status.st_mtime, status.st_size, Path(entry.path)


def em_cache(limit_bytes: int) -> ChunkCache | None:
    """This machine's, in its folder for caches; None for a limit of 0."""
    return ChunkCache(cache_folder() / "em", limit_bytes) if limit_bytes else None


def _seal(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_SEAL_BYTES, "little")
