"""What MLflow has registered, and a copy of it that answers while the database has not changed.

MLflow takes three seconds to import; a command that only asks which version an alias means reads the copy in
milliseconds. The copy lies beside the sqlite file and holds for one state of it: its size, time of change, inode, and
the counter that SQLite increments with each transaction (https://sqlite.org/fileformat2.html, 1.3.7).
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ensemble.support import write_json
from registry.connection import Connection, pages

_SQLITE, _HEADER_BYTES = b"SQLite format 3\x00", 100
_WRITE_AHEAD = 2
"""The format of a database whose changes lie in another file first, which the counter does not count."""


@dataclass(frozen=True)
class Entry:
    """A model version as MLflow keeps it."""

    name: str
    version: int
    source: str
    run_id: str
    milliseconds: int
    tags: dict[str, str]


@dataclass(frozen=True)
class Model:
    """A registered model's aliases, with the versions they mean, and its tags."""

    aliases: dict[str, int]
    tags: dict[str, str]


@dataclass(frozen=True)
class Listing:
    """All versions, in no order, and their models by name."""

    entries: tuple[Entry, ...]
    models: dict[str, Model]

    def of(self, name: str) -> dict[int, Entry]:
        """The versions of a model by number."""
        return {entry.version: entry for entry in self.entries if entry.name == name}

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model, with the versions they mean."""
        return self.models[name].aliases if name in self.models else {}


def read_listing(connection: Connection, name: str | None = None) -> Listing:
    """What is registered now; of a server that is asked, only what is called ``name`` if that is given.

    Ask for it inside ``answering``.
    """
    database = connection.database
    if database is None:
        return _ask(connection, name)
    state = _state(database)
    listing = None if state is None else _read_copy(database, state)
    if listing is None:
        listing = _ask(connection, None)
        if state is not None and state == _state(database):
            _write_copy(database, state, listing)
    return listing


def _ask(connection: Connection, name: str | None) -> Listing:
    client, query = connection.client, None if name is None else f"name = '{name}'"
    entries = [
        Entry(
            name=version.name,
            version=int(version.version),
            source=version.source or "",
            run_id=version.run_id or "",
            milliseconds=version.creation_timestamp,
            tags=dict(version.tags),
        )
        for version in pages(client.search_model_versions, query)
        if str(version.version).isdecimal()  # whatever else a server says names no version
    ]
    models = {
        model.name: Model(
            {alias: int(number) for alias, number in model.aliases.items() if str(number).isdecimal()}, dict(model.tags)
        )
        for model in pages(client.search_registered_models, query)
    }
    return Listing(tuple(entries), models)


def _state(database: Path) -> list[int] | None:
    """What changes with every transaction; None where that cannot be told."""
    try:
        with database.open("rb") as file:
            header, status = file.read(_HEADER_BYTES), os.fstat(file.fileno())
    except OSError:
        return None
    if not header.startswith(_SQLITE) or len(header) < _HEADER_BYTES or header[18] == _WRITE_AHEAD:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino, int.from_bytes(header[24:28], "big")]


def _copy(database: Path) -> Path:
    return database.with_name(f"{database.name}.listing.json")


def _read_copy(database: Path, state: list[int]) -> Listing | None:
    """The copy if it is one of this state; whatever else lies there is as good as none."""
    try:
        content = json.loads(_copy(database).read_text(encoding="utf-8"))
        if content["state"] != state:
            return None
        models = {name: Model(**model) for name, model in content["models"].items()}
        return Listing(tuple(Entry(**entry) for entry in content["entries"]), models)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _write_copy(database: Path, state: list[int], listing: Listing) -> None:
    with suppress(OSError):  # a store others share for reading, or a full disk
        write_json(_copy(database), {"state": state, **asdict(listing)})
