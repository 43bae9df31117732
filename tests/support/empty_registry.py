"""A registry of its own for a test, at the price of copying a file: MLflow takes seconds to make the tables."""

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from registry.embedded import address_of
from registry.store import Registry
from tests.support.processes import ROOT

TABLES = ROOT / ".pytest_cache" / f"mlflow-{version('mlflow')}.db"
"""A store in which nothing is registered, made by whoever first needs one and kept for other processes and runs."""


def _make_tables() -> None:
    from mlflow import MlflowClient

    TABLES.parent.mkdir(exist_ok=True)
    with FileLock(TABLES.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=TABLES.parent) as folder:
        if not TABLES.exists():
            MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
            os.replace(Path(folder, "mlflow.db"), TABLES)


def store_in(folder: Path) -> Registry:
    """The registry in ``folder``, as it is there or empty; its tables are in place."""
    database = folder / "mlflow.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not TABLES.exists():
            _make_tables()
        shutil.copyfile(TABLES, database)
    return Registry(address_of(database))
