"""What the folder of a registered version holds, and where it lies on this machine."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from ensemble.support import EnsembleError, RegistryError, cache_folder
from registry.connection import Connection
from registry.embedded import ARTIFACTS, artifacts_of

WEIGHTS, CARD, GOLDEN = "model.safetensors", "card.yaml", "golden.npz"
FOLDER = "model"
"""The folder's name among the artifacts of the run that registered the version."""
_RUN_ID = re.compile(r"\w[\w-]{0,254}", re.ASCII)
"""What a server may call a run: one folder's name, which leads nowhere else."""


def local_file(connection: Connection, source: str, run_id: str, name: str) -> Path:
    """A version's file where it lies, or its copy fetched once from a server.

    Beside a sqlite file it is looked for first, wherever that has been moved to. Raises RegistryError for a file that
    should lie here and does not, and for a run whose name would lead elsewhere.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise RegistryError(
            f"{connection.address}: no run is called {run_id!r}, where a version's files should lie; do not use this"
            " registry before whoever runs it has looked into it"
        )
    if source.startswith(("file:", "/")):
        places = [_path(source) / name]
        if connection.database is not None:
            places.insert(0, artifacts_of(connection.database) / run_id / ARTIFACTS / FOLDER / name)
        path = next((path for path in places if path.is_file()), places[0])
        if not path.is_file():
            raise RegistryError(
                f"{path}: the registry lists this file, but it is not there; restore it, or register the"
                " model again (a server's files are only reachable if it runs with --serve-artifacts)"
            )
        return path
    path = _cache() / run_id / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
            os.replace(connection.client.download_artifacts(run_id, f"{FOLDER}/{name}", folder), path)
    return path


def whole_file(connection: Connection, source: str, run_id: str, name: str, check: Callable[[Path], None]) -> Path:
    """As ``local_file``, of a file that ``check`` does not refuse; a copy from a server is then fetched once anew."""
    path = local_file(connection, source, run_id, name)
    try:
        check(path)
    except EnsembleError:
        if not is_fetched(path):
            raise
        path.unlink(missing_ok=True)
        path = local_file(connection, source, run_id, name)
        check(path)
    return path


def beside(connection: Connection, name: str) -> Path:
    """Where a file of our own lies beside an embedded registry, or on this machine for that of a server."""
    return _cache().parent / name if connection.database is None else connection.database.with_name(name)


def is_fetched(path: Path) -> bool:
    """Whether a file is a copy from a server, which can be fetched again."""
    return path.is_relative_to(_cache())


def _path(uri: str) -> Path:
    parts = urlparse(uri)
    return Path(url2pathname(parts.path) if parts.scheme == "file" else uri)


def _cache() -> Path:
    return cache_folder() / "models"
