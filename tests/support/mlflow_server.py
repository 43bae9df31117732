"""A real MLflow server on loopback, which can be taken away and brought back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.empty_registry import store_in

_LEAN = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


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
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts"), "--serve-artifacts"]
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **_LEAN}, start_new_session=True
            )
        while self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=10).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"the server did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """A server that runs while the block does."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
