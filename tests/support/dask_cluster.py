"""A dask.distributed cluster of real processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import NEVER_S, ROOT

PLAIN, WITH_GPU = (), ("--resources", "GPU=1")
"""Options of workers."""


class Cluster:
    """A scheduler, by the file that it wrote, and workers; each has a nanny that starts it again."""

    def __init__(self, folder: Path) -> None:
        self.file, self._folder = folder / "scheduler.json", folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("dask_scheduler", "--port", "0", "--scheduler-file", str(self.file))
        while not self.file.exists():
            time.sleep(0.05)

    def add(self, *options: str) -> subprocess.Popen[bytes]:
        """One more worker."""
        local = ("--local-directory", str(self._folder / "local"), "--nthreads", "1")
        return self._start("dask_worker", "--scheduler-file", str(self.file), *local, *options)

    def _start(self, module: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1", "--no-dashboard"]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        log = (self._folder / f"{module}-{len(self._processes)}.log").open("wb")
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
        )
        self._processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(NEVER_S)


@contextmanager
def cluster(folder: Path, *workers: Sequence[str]) -> Iterator[Cluster]:
    """A cluster with a worker for each list of options."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder)
    try:
        for options in workers:
            made.add(*options)
        yield made
    finally:
        made.close()


def until(holds: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
