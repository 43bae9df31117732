"""Files that are there in whole or not at all, and folders that one process works in at a time."""

import errno
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ensemble.support.errors import EnsembleError

PARTIAL = ".part"
"""How the name of a file ends that is not finished; what lies about under such a name is a torn one."""

_FULL = frozenset(
    number for name in ("ENOSPC", "EDQUOT", "EFBIG") if (number := getattr(errno, name, None)) is not None
)


_NONE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, RecursionError)
"""What reading a file of ours raises where there is none, or something else in its place."""


def cache_folder() -> Path:
    """Where this project keeps, on this machine, what it can fetch or make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ensemble"


def is_disk_full(error: OSError) -> bool:
    """Whether there was no room: on the disk, in a quota, or for so large a file."""
    return error.errno in _FULL


def refuse_links(*paths: Path) -> None:
    """Raises EnsembleError where a path, or what lies anywhere beneath it, is a symbolic link: none is followed.

    Where one was put in a folder that is worked in, files elsewhere would be written over, or taken away.
    """
    pending = list(paths)
    while pending:
        path = pending.pop()
        if path.is_symlink():
            raise EnsembleError(f"{path}: is a symbolic link, which is not followed here; take it away")
        if path.is_dir():
            with os.scandir(path) as entries:
                pending += [Path(entry.path) for entry in entries if entry.is_symlink() or entry.is_dir()]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or folder at, which takes the place of ``path`` when all went well.

    Where it did not, ``path`` is as it was and nothing is left behind. Two processes or threads do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, at once or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write plain values, at once or not at all."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """What a file of ours says; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except _NONE:
        return None


def write_sealed(path: Path, data: Any) -> None:
    """Write plain values with a checksum, at once or not at all; ``read_sealed`` reads them back."""
    text = json.dumps(data)
    if path.is_dir():
        shutil.rmtree(path)
    write_text(path, f"{text}\n{_seal(text)}\n")


def texts_in(values: Any, key: str) -> list[str]:
    """The texts listed under a key of what ``read_sealed`` gave; none where it holds anything else."""
    listed = values.get(key) if isinstance(values, dict) else None
    return [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []


def read_sealed(path: Path) -> Any:
    """What ``write_sealed`` wrote; None where there is no such file, or any bit of it has changed."""
    try:
        text, seal, end = path.read_bytes().decode().split("\n")
        return json.loads(text) if seal == _seal(text) and not end else None
    except _NONE:
        return None


def _seal(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


@contextmanager
def alone_with(lock: Path, message: str) -> Iterator[None]:
    """While this lasts no other process holds ``lock``. Raises EnsembleError with ``message`` when one does."""
    with held_if_free(lock) as mine:
        if not mine:
            raise EnsembleError(message)
        yield


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """While this lasts no other process or thread holds ``lock``; waits until it is free."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    refuse_links(lock)
    with FileLock(lock):
        yield


@contextmanager
def held_if_free(lock: Path) -> Iterator[bool]:
    """Whether ``lock`` was free; then no other process or thread holds it while this lasts.

    A process that ends, however it does, holds nothing any more.
    """
    refuse_links(lock)
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def one_line(reason: object, width: int | None = None) -> str:
    """What an error or a value says, on one line, of at most ``width`` characters; its type where it says nothing."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if width is None or len(text) <= width else text[: width - 1] + "…"
