"""Other processes of this project: how they find it, and how a test waits for what they do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEVER_S = 600
"""Only a process that hangs takes as long; nothing that a test says depends on it."""


def environment() -> dict[str, str]:
    """In which a process imports what this one does."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter says that runs ``code``."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=NEVER_S)


def ensemble(*arguments: str, stop_at: str = "", number: int = 1, **options) -> subprocess.Popen[str]:
    """The command line as a process; with ``stop_at`` it is returned once it has stopped, as ``command`` says."""
    command = [sys.executable, "-m", "tests.support.command", stop_at, str(number), *arguments]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment(), **pipes, **options)
    if stop_at:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"it ended before it came to {stop_at}: {process.stderr.read()}"
    return process


def go_on(process: subprocess.Popen[str], *first: signal.Signals) -> str:
    """Send a stopped process signals and let it end; what it said on stderr."""
    for one in first:
        process.send_signal(one)
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=NEVER_S)[1]
