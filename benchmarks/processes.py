"""Running something in a process of its own, so that its peak memory and its imports are its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOOKS_EVERY_S = 0.5


@dataclass(frozen=True)
class Run:
    """How a process went: wall time, highest resident memory, exit code, and what it wrote."""

    wall_s: float
    peak_gib: float
    code: int
    out: str


def run(command: Sequence[str], **environment: str) -> Run:
    """Run a command to its end. Its highest memory is asked of the system as it goes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    pipe = process.stdout
    assert pipe is not None  # as asked for
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(pipe.read()))
    reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, _peak_kib(str(process.pid)))
        time.sleep(_LOOKS_EVERY_S)
    wall = time.perf_counter() - began
    reader.join()
    return Run(wall, peak / 2**20, process.returncode, printed[0])


def forget_peak() -> None:
    """Let the highest resident memory of this process be counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_gib() -> float:
    """The highest resident memory of this process."""
    return _peak_kib("self") / 2**20


def _peak_kib(pid: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


_HERE = str(Path(__file__).parents[1])


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line of this checkout, and the environment that it needs."""
    return [sys.executable, "-m", "ensemble.cli", *arguments], {**os.environ, "PYTHONPATH": _HERE}


def ensemble(*arguments: str, **environment: str) -> Run:
    """Run the command line of this checkout."""
    return run(command(*arguments)[0], PYTHONPATH=_HERE, **environment)


def in_a_process(module: str, *arguments: str) -> tuple[Any, Run]:
    """What ``python -m module`` prints as JSON on its last line, and how it went."""
    done = run([sys.executable, "-m", module, *arguments], PYTHONPATH=_HERE)
    if done.code:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.out}")
    return json.loads(done.out.splitlines()[-1]), done
