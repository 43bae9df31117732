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

_LOOKS_EVERY_S = 2.0
"""Each look takes tens of milliseconds of a core where processes hold gigabytes."""


@dataclass(frozen=True)
class Run:
    """How a process went: wall time, highest resident memory with its children's, exit code, and what it wrote."""

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
        peak = max(peak, _peak_kib(str(process.pid)), sum(map(_resident_kib, _family(process.pid))))
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


def _family(pid: int) -> list[int]:
    """A process with all that it started, and they."""
    parents = {int(place.name): _parent(place) for place in Path("/proc").iterdir() if place.name.isdigit()}
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _parent(place: Path) -> int:
    try:
        return int((place / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _resident_kib(pid: int) -> int:
    """Memory of a process, what it shares with others by its share of it."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


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
