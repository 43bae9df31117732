"""Other processes of this project: how they find it, and how a test waits for what they do.

Commands and servers are forked from one process per worker that has imported what they need: a start takes a tenth of a
second in place of ten.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
NEVER_S = 600
"""Only a process that hangs takes as long; nothing that a test says depends on it."""

FORKED = multiprocessing.get_context("forkserver")
PRELOADED = ["ensemble.build.building", "ensemble.cli.build_commands", "ensemble.report.report", "registry.packing"]
PRELOADED += ["mlflow.server.fastapi_app", "mlflow.store.tracking.sqlalchemy_store", "uvicorn"]
PRELOADED += ["mlflow.store.model_registry.sqlalchemy_store", "monai.networks.nets", "torch._dynamo"]
FORKED.set_forkserver_preload(PRELOADED)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says that runs ``code``."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": _path()}, timeout=NEVER_S
    )


def _path() -> str:
    """On which a process finds the very project that these tests are of."""
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


class _Streams:
    """Two ends of pipes, which become stdout and stderr of the process they are handed to."""

    def __init__(self, ends: tuple[int, ...]) -> None:
        self._ends = ends

    def __reduce__(self) -> tuple[type["_Streams"], tuple[tuple[Any, ...]]]:
        return _Streams, (tuple(DupFd(end) for end in self._ends),)

    def take(self) -> None:
        for number, end in enumerate(self._ends, start=1):
            os.dup2(end.detach(), number)


def _run(folder: str, variables: dict[str, str], streams: _Streams, function: Callable, arguments: tuple) -> None:
    streams.take()
    assert not set(PRELOADED) - set(sys.modules), "what cannot be imported is left out in silence"
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.exit(function(*arguments))


class Forked:
    """A process that runs a function of a module, in this one's working directory and environment."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        reading, writing = zip(*(os.pipe() for _ in range(2)), strict=True)
        self.stdout, self.stderr = (open(end) for end in reading)
        given = (os.getcwd(), dict(os.environ), _Streams(writing), function, arguments)
        self._process = FORKED.Process(target=_run, args=given)
        with patch.dict(os.environ, PYTHONPATH=_path()):  # of the process that is forked from, at its start
            self._process.start()
        for end in writing:
            os.close(end)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def wait_until_stopped(self) -> None:
        while self._process.is_alive():
            command = ["ps", "-o", "state=", "-p", str(self._process.pid)]
            if subprocess.run(command, capture_output=True, text=True).stdout.startswith("T"):
                return
            time.sleep(0.02)
        raise AssertionError(f"it ended before it stopped: {self.ended()[1]}")

    def ended(self) -> tuple[str, str]:
        """What it said on stdout and stderr, once it has ended."""
        with ThreadPoolExecutor(2) as readers:
            out, errors = readers.map(lambda stream: stream.read(), (self.stdout, self.stderr), timeout=NEVER_S)
        self._process.join(NEVER_S)
        return out, errors


def go_on(process: Forked, *first: signal.Signals) -> str:
    """Send a stopped process signals and let it end; what it said on stderr."""
    for one in (*first, signal.SIGCONT):
        process.send(one)
    return process.ended()[1]
