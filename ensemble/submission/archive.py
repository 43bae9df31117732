"""The files of a submission, from its zip or an unzipped folder, read so that none can do harm."""

import os
import re
import stat
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ensemble.support import NOT_A_ZIP, SubmissionError


class Archive(Protocol):
    """The files of a submission."""

    @property
    def place(self) -> Path:
        """The zip or the folder."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file that may be read, by its name."""
        ...

    @property
    def refused(self) -> tuple[str, ...]:
        """Of each unsafe file, in a line, why it is never read."""
        ...

    def read(self, name: str, limit_bytes: int) -> bytes:
        """A file's content; ValueError when it is longer than the limit. Safe to call from threads."""
        ...

    def close(self) -> None: ...


_COMPRESSIONS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
_READ_EVERYWHERE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_ENCRYPTED = 0x1
_PIECE, _SMALL_PIECE = 1 << 20, 1 << 12
"""Bytes unpacked at once; of bzip2 and LZMA so many bytes are taken, whatever they unpack to."""


def _check_packing(place: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    """Raise SubmissionError where members cannot be read by anyone without the tool that packed them."""
    if any(info.flag_bits & _ENCRYPTED for info in infos):
        raise SubmissionError(f"{place}: is encrypted; pack it without a password")
    strange = {info.compress_type for info in infos} - set(_READ_EVERYWHERE)
    if strange:
        names = " and ".join(_COMPRESSIONS.get(one, f"compression method {one}") for one in sorted(strange))
        what = f"is compressed with {names}, which the server cannot read"
        raise SubmissionError(f"{place}: {what}; pack it with Deflate, or store the files as they are")


class _Zipped:
    def __init__(self, place: Path, file: zipfile.ZipFile) -> None:
        _check_packing(place, file.infolist())
        self.place, self._file, self._lock = place, file, threading.Lock()
        # by info, not by name: of two members with one name only the first is ever read
        self._infos: dict[str, zipfile.ZipInfo] = {}
        refused = []
        for info in file.infolist():
            why = _unsafe(info.filename, linked=stat.S_ISLNK(info.external_attr >> 16))
            if why is None and info.filename in self._infos:
                why = "is in the zip twice"
            if why is not None:
                refused.append(f"{info.filename}: {why}")
            elif not info.is_dir():
                self._infos[info.filename] = info
        self.sizes = {name: info.file_size for name, info in self._infos.items()}
        self.refused = tuple(refused)

    def read(self, name: str, limit_bytes: int) -> bytes:
        _within(self.sizes[name], limit_bytes)
        with self._lock:
            return self._unpacked(self._infos[name])

    def _unpacked(self, info: zipfile.ZipInfo) -> bytes:
        """A member in pieces: zipfile unpacks all that it is given before it cuts to the size that is declared."""
        piece = _PIECE if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _SMALL_PIECE
        with self._file.open(info) as file:
            return b"".join(iter(lambda: file.read(piece), b""))

    def close(self) -> None:
        self._file.close()


class _Folder:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.sizes: dict[str, int] = {}
        refused = []
        for folder, folders, files in os.walk(place):
            for path in (Path(folder, name) for name in sorted([*folders, *files])):
                name = path.relative_to(place).as_posix()
                if path.is_symlink():
                    refused.append(f"{name}: {_unsafe(name, linked=True)}")
                elif path.is_file():
                    self.sizes[name] = path.stat().st_size
        self.refused = tuple(refused)

    def read(self, name: str, limit_bytes: int) -> bytes:
        _within(self.sizes[name], limit_bytes)
        return (self.place / name).read_bytes()

    def close(self) -> None:
        """Nothing is held open."""


def _unsafe(name: str, *, linked: bool) -> str | None:
    parts = re.split(r"[/\\]", name)
    if linked:
        return "is a symbolic link; store the file itself"
    if ".." in parts:
        return "leaves the store through '..'; store it under its own name"
    if parts[0] == "" or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "is not a relative name with '/' between its parts"
    return None


def _within(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"{size:,} bytes where at most {limit_bytes:,} make sense")


def open_archive(path: Path) -> Archive:
    """The files of a zip or folder. Raises SubmissionError when it is neither, or cut short."""
    path = Path(path)
    if path.is_dir():
        return _Folder(path)
    try:
        return _Zipped(path, zipfile.ZipFile(path))
    except OSError as error:
        raise SubmissionError(f"{path}: cannot read the submission: {error.strerror or error}") from error
    except NOT_A_ZIP as error:
        with path.open("rb") as file:
            cut = file.read(2) == b"PK"
        what = "the zip is damaged or cut short; copy or build it again" if cut else "this is not a zip file"
        raise SubmissionError(f"{path}: {what}") from error
