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


@dataclass(frozen=True)
class Run:
    """How a process went: wall time, highest resident memory, exit code, and what it wrote."""

    wall_s: float
    peak_gib: float
    code: int
    out: str


def run(command: Sequence[str], **environment: str) -> Run:
    """Run a command to its end. Its memory is read from the system every tenth of a second, and at its end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, _peak_kib(process.pid))
        time.sleep(0.1)
    wall = time.perf_counter() - began
    reader.join()
    return Run(wall, peak / 2**20, process.returncode, said[0])


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def ensemble(*arguments: str, **environment: str) -> Run:
    """Run the command line of this checkout."""
    here = str(Path(__file__).parents[1])
    return run([sys.executable, "-m", "ensemble.cli", *arguments], PYTHONPATH=here, **environment)


def in_a_process(module: str, *arguments: str) -> tuple[Any, Run]:
    """What ``python -m module`` prints as JSON on its last line, and how it went."""
    done = run([sys.executable, "-m", module, *arguments], PYTHONPATH=str(Path(__file__).parents[1]))
    if done.code:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.out}")
    return json.loads(done.out.splitlines()[-1]), done
