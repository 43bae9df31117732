"""A real MLflow server on loopback, which can be taken away and brought back."""

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.empty_registry import store_in
from tests.support.processes import Forked


class Server:
    """A process that serves models, runs and artifacts kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        store_in(folder)  # the server finds its tables made
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = Forked(_serve, self._folder, self._port)
        while self._process.returncode is None:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=10).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"the server did not start: {self._process.ended()[1][-2000:]}")

    def stop(self) -> None:
        self._process.send(signal.SIGKILL)
        self._process.ended()


def _serve(folder: Path, port: int) -> None:
    """What ``mlflow server`` does in the process it starts for one worker; it says nothing."""
    import uvicorn
    from mlflow import server

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ[server.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{folder / 'mlflow.db'}"
    os.environ[server.ARTIFACTS_DESTINATION_ENV_VAR] = str(folder / "artifacts")
    os.environ[server.ARTIFACT_ROOT_ENV_VAR] = "mlflow-artifacts:/"
    os.environ[server.SERVE_ARTIFACTS_ENV_VAR] = "true"
    uvicorn.run("mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, log_level="critical")


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """A server that runs while the block does."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
