"""How the registry reaches MLflow: an embedded sqlite file or a server, quietly, and with failures told."""

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ensemble.support import EnsembleError, RegistryError, without_credentials
from registry import embedded
from registry.server_trouble import in_words, is_answer, is_trouble, silence_at

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_WITHIN_S = 300
ATTEMPTS = 8
# A server that is gone is told of in seconds, and nothing chatters; what the user has set stays.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what it logs as an error is raised too
}
T = TypeVar("T")


class Connection:
    """A way to the MLflow at ``tracking_uri``; nothing is imported, read or created before it is used."""

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.address = without_credentials(tracking_uri)
        """As it is shown."""
        self._is_ready = False

    @cached_property
    def database(self) -> Path | None:
        """The sqlite file, or None for a server or another database."""
        return embedded.database_at(self.tracking_uri)

    def exists(self) -> bool:
        """Whether there is a store to read; of a server it is taken for granted.

        Raises RegistryError where that cannot be seen.
        """
        try:
            return self.database is None or self.database.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise RegistryError(f"{self.database}: the model registry cannot be read: {error.strerror}") from error

    def write_fault(self) -> str | None:
        """Why nothing can be written there; None where that cannot be seen beforehand."""
        if self.database is not None:
            fault = embedded.write_fault(self.database)
            return fault and f"{self.database}: the model registry cannot be written: {fault}; make it writable"
        try:
            with self.answering():
                self._check_address()
                _ = self.client
        except RegistryError as error:
            return str(error)
        return None

    def _check_address(self) -> None:
        """Raise RegistryError for an address that keeps no registry, or at which no server answers."""
        if self.tracking_uri.startswith(("http://", "https://")):
            if silence := silence_at(self.tracking_uri):
                raise RegistryError(f"{self.address}: {silence}")
        elif self.tracking_uri.startswith(("file:", "/", "./", "../")):
            raise RegistryError(
                f"{self.address}: MLflow 3 keeps no registry in plain folders; use sqlite:///PATH/mlflow.db"
                " or the address of a server"
            )

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's own client, its tables in place; ask for it inside ``answering``."""
        self._check_address()
        import mlflow  # noqa: F401  (its loggers are there then)

        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
        with self.locked():
            if self.database is not None and not self.exists():
                embedded.make_tables(self.database)
            try:
                return self._opened()
            except Exception as error:
                if not is_trouble(error) or self.database is None or not embedded.holds_nothing(self.database):
                    raise
                embedded.make_tables(self.database)  # another tool was interrupted while it made them
                return self._opened()

    def _opened(self) -> "MlflowClient":
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.tracking_uri)
        client.search_registered_models(max_results=1)  # MLflow makes or upgrades its tables now
        return client

    @cached_property
    def _lock(self) -> AbstractContextManager[Any]:
        """Keeps two processes from making the tables, or a version, of one sqlite file at once."""
        if self.database is None:
            return nullcontext()
        self.database.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.database.parent, os.W_OK):
            return nullcontext()  # a store others share for reading
        from filelock import FileLock

        return FileLock(f"{self.database}.lock", timeout=LOCK_WITHIN_S)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the sqlite file among all processes of this machine; a server sees to that itself."""
        with self._lock:
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """As ``answering``, for what changes the store; RegistryError at once where nothing can be written."""
        with self.answering():
            if not self._is_ready:
                self._make_ready()
            yield

    def _make_ready(self) -> None:
        fault = self.write_fault()
        if fault is not None:
            raise RegistryError(fault)
        if self.database is not None and self.client:
            with self.locked():
                embedded.bring_home(self.database)
        self._is_ready = True

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Tell whatever goes wrong between here and the store in one line."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        try:
            yield
        except EnsembleError:
            raise
        except Exception as error:
            if not is_trouble(error):
                raise
            raise RegistryError(f"{self.address}: {in_words(error)}") from error


def pages(search: Callable[..., Any], query: str | None = None) -> Iterator[Any]:
    """All results of one of MLflow's paged searches."""
    token = None
    while True:
        page = search(filter_string=query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def unless_there(create: Callable[[], Any]) -> None:
    """Call ``create``; that another process has just done the same is as good."""
    from mlflow.exceptions import MlflowException

    try:
        persistently(create)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def persistently(call: Callable[[], T]) -> T:
    """The answer of ``call``, asked again while others keep the database busy; requests are tried again by MLflow."""
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE") or not is_answer(error):
                raise
            time.sleep(random.uniform(0.5, 1) * min(0.1 * 2**attempt, 2))
    return call()
