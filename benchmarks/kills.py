"""Builds killed at random moments and begun again, beside one that nobody disturbs.

    python -m benchmarks.kills [--kills 50] [--seed 0] [--work DIR]

Each kill (SIGKILL) falls at a random moment of the time an undisturbed build takes; then the build goes on, and
may be killed again. When one ends, its zip must be the undisturbed one's, byte for byte, and the next begins.
The job is the demo's: EM, three networks, joint decoding, watershed (made by ``make demo`` if it is not there).
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import command
from ensemble.plan import registry_in

DEMO = Path("build/demo")
BUILD = ["build", "recipes/demo.yaml", "--data", str(DEMO / "data"), "--manifest", str(DEMO / "manifest.csv")]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    line, environment = command(*BUILD, "--out", str(out), *more)
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(out: Path, *more: str) -> float:
    """Seconds that a build takes to its end."""
    began = time.perf_counter()
    process = start(out, *more)
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(printed)
    return time.perf_counter() - began


def digest(out: Path) -> str:
    return hashlib.sha256((out / "submission.zip").read_bytes()).hexdigest()


def kill_until_done(out: Path, longest_s: float, moments: random.Random, most: int) -> tuple[int, int]:
    """Kill and resume until a build ends or ``most`` kills are spent: (kills, those during predictions)."""
    kills = early = 0
    while kills < most:
        process = start(out)
        try:
            process.communicate(timeout=moments.uniform(0.5, longest_s))
        except subprocess.TimeoutExpired:
            early += not (out / "work/assembled").exists()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        if process.returncode:
            sys.exit(f"a resumed build failed with exit code {process.returncode}")
        return kills, early
    finish(out)
    return kills, early


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/kills"))
    arguments = parser.parse_args()
    os.environ["MLFLOW_TRACKING_URI"] = registry_in(DEMO).tracking_uri
    work, moments = arguments.work, random.Random(arguments.seed)
    if not (DEMO / "training").exists():
        sys.exit("make prepare-demo first")
    shutil.rmtree(work, ignore_errors=True)
    whole_s = finish(work / "undisturbed")
    expected = digest(work / "undisturbed")
    again_s = finish(work / "undisturbed")
    print(f"undisturbed: {whole_s:.0f} s; the same again, all done: {again_s:.1f} s (promised 5)", flush=True)
    shutil.rmtree(work / "predictions")
    for workers in ("1", "3"):
        finish(work / "workers", "--workers", workers)
        same = digest(work / "workers") == expected
        print(f"--workers {workers}: {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
        shutil.rmtree(work / "workers")
        shutil.rmtree(work / "predictions")
    kills = builds = early = wrong = 0
    while kills < arguments.kills:
        out = work / "disturbed"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(work / "predictions", ignore_errors=True)
        here, while_predicting = kill_until_done(out, whole_s, moments, arguments.kills - kills)
        kills, early, builds = kills + here, early + while_predicting, builds + 1
        wrong += digest(out) != expected
        print(
            f"{kills} kills in {builds} builds, {early} before anything was assembled: {wrong} zips differ", flush=True
        )
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
