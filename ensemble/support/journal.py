"""A file of lines that only grows: what is finished, so that work that was interrupted goes on from there."""

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ensemble.support.files import refuse_links


class Journal:
    """Lines of a file, each a word and a value. ``Journal.open`` what is there; ``close`` at the end."""

    def __init__(self, path: Path, entries: dict[str, list[Any]]) -> None:
        self._entries = entries
        self._file = path.open("a", encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """The journal at ``path``, new or as it was left.

        A last line that was not finished is cut off. Where any other line is damaged nothing is believed: the
        journal is empty again; so it is where something else lies in its place. Raises EnsembleError for a link.
        """
        refuse_links(path)
        if path.is_dir():
            shutil.rmtree(path)
        lines = _whole_lines(path)
        if path.exists():
            os.truncate(path, sum(len(line) for line in lines))
        return cls(path, _by_word(lines))

    @staticmethod
    def read(path: Path) -> dict[str, list[Any]]:
        """What a journal says, by word; nothing is changed."""
        return _by_word(_whole_lines(path))

    def noted(self, word: str) -> list[Any]:
        """The values noted under a word, in their order."""
        return self._entries.get(word, [])

    def note(self, word: str, value: Any) -> None:
        """Add a line; it is with the operating system when this returns."""
        text = json.dumps([word, value])
        self._file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
        self._file.flush()
        self._entries.setdefault(word, []).append(value)

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[bytes]:
    """The finished lines of a journal; none where one of them is not as it was written."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return lines if all(map(_is_right, lines)) else []


def _is_right(line: bytes) -> bool:
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    return checksum == b"%08x" % zlib.crc32(text)


def _by_word(lines: Iterable[bytes]) -> dict[str, list[Any]]:
    entries: dict[str, list[Any]] = {}
    for line in lines:
        word, value = json.loads(line.partition(b" ")[2])
        entries.setdefault(word, []).append(value)
    return entries
