"""The sqlite file of a registry without a server, and its artifacts, which are found beside it wherever both lie."""

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

ARTIFACTS = "artifacts"
"""The folder beside the sqlite file; in it MLflow keeps RUN/artifacts/… for each run."""

BUSY_S = 60
"""So long another process that writes is waited for."""

_PLACES = (
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Where MLflow's tables say at which address files lie."""


def address_of(database: Path) -> str:
    """The tracking URI of a sqlite file; ``database_at`` gives the file back."""
    return f"sqlite:///{str(database).replace('%', '%25').replace('?', '%3F')}"


def database_at(tracking_uri: str) -> Path | None:
    """The sqlite file that a tracking URI means, percents read as SQLAlchemy does; None for any other store."""
    parts = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", tracking_uri, re.DOTALL)
    return Path(unquote(parts[1])).absolute() if parts else None


def artifacts_of(database: Path) -> Path:
    """The folder of all files of the registry."""
    return database.parent / ARTIFACTS


def make_tables(database: Path) -> None:
    """Make the sqlite file with MLflow's tables: it is there whole or, wherever this is interrupted, as it was.

    Nobody else may be making it meanwhile. What an interrupted one left aside is taken away.
    """
    from mlflow import MlflowClient

    aside = database.with_name(f"{database.name}.new")
    for path in (aside, aside.with_name(f"{aside.name}-journal")):
        path.unlink(missing_ok=True)
    client = MlflowClient(tracking_uri=address_of(aside))
    client.search_experiments(max_results=1)
    client.search_registered_models(max_results=1)
    if database.exists():  # MLflow keeps a file open that it has failed at, so that another would not be seen
        with closing(sqlite3.connect(aside)) as made, closing(sqlite3.connect(database)) as target:
            made.backup(target)
        aside.unlink()
    else:
        os.replace(aside, database)


def holds_nothing(database: Path) -> bool:
    """Whether neither run nor model was ever kept there, as where MLflow was interrupted while it made its tables."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            kept = [t for t in ("runs", "registered_models") if t in tables]
            return not any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in kept)
    except sqlite3.Error:
        return False


def write_fault(database: Path) -> str | None:
    """Why the registry cannot be written; None where it can be, or could be made. Nothing is changed."""
    for path in (database.parent, artifacts_of(database)):
        there = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            return f"{there} is {'read-only' if there.is_dir() else 'no folder'}"
    if not os.path.exists(database):
        return None
    try:
        with closing(sqlite3.connect(database, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        # another process that writes just now is no fault
        return None if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY else str(error)
    return None


def bring_home(database: Path) -> None:
    """Let MLflow look for the files of this project's runs beside the database, wherever both have been moved to."""
    home = artifacts_of(database).as_uri()
    ours = f"name LIKE 'ensemble %' AND artifact_location LIKE 'file:%/{ARTIFACTS}' AND artifact_location <> ?"
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        places = connection.execute(f"SELECT DISTINCT artifact_location FROM experiments WHERE {ours}", (home,))
        for (old,) in places.fetchall():
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE substr({column} || '/', 1, ?) = ? || '/'",
                    (home, len(old) + 1, len(old) + 1, old),
                )
