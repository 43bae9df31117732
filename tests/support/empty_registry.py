"""A registry of its own for a test, at the price of copying a file: MLflow takes seconds to make the tables."""

import tempfile
from functools import cache
from pathlib import Path

from registry.store import Registry


@cache
def _tables() -> bytes:
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        return Path(folder, "mlflow.db").read_bytes()


def store_in(folder: Path) -> Registry:
    """The registry in ``folder``, as it is there or empty; its tables are in place."""
    database = folder / "mlflow.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        database.write_bytes(_tables())
    return Registry(f"sqlite:///{database}")
