"""The official manifest, all of it, from stored probabilities to a checked zip.

    python -m benchmarks.full [--work DIR] [--memory GIB] [--crops A,B] [--dask]

Synthesises EM and probabilities for the 16 crops once (see ``synthetic``; about 4 minutes and 3 GB), then builds with
watershed and joint decoding, and checks the zip again. Beside each figure stands what was promised. With ``--dask``
the same is built by two workers of a Dask cluster on this machine, to the same bytes.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import synthetic
from benchmarks.processes import Run, ensemble
from ensemble.core import Target, official_manifest
from tests.support.dask_cluster import PLAIN, cluster


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/full"))
    parser.add_argument("--memory", default="8", metavar="GIB")
    parser.add_argument("--crops", metavar="A,B", help="only these (default: all 16)")
    parser.add_argument("--dask", action="store_true", help="build it with a Dask cluster, too")
    arguments = parser.parse_args()
    targets = [t for t in official_manifest() if not arguments.crops or t.crop in arguments.crops.split(",")]
    work = arguments.work
    if not (work / "probabilities/recipe.yaml").exists():
        began = time.perf_counter()
        synthetic.write(work / "probabilities", official_manifest())
        print(f"synthesised probabilities in {time.perf_counter() - began:.0f} s", flush=True)
    shutil.rmtree(work / "out", ignore_errors=True)
    registry = f"sqlite:///{(work / 'mlflow.db').resolve()}"
    root, out, some = str(work / "probabilities"), work / "out", ["--crops", arguments.crops] if arguments.crops else []
    build = ["build", f"{root}/recipe.yaml", "--data", root, "--out", str(out), "--memory", arguments.memory, *some]
    voxels = sum(t.grid.size * len(t.classes) for t in targets)
    print(f"{sum(len(t.classes) for t in targets)} arrays, {voxels / 1e9:.1f} Gvoxel", flush=True)
    built = ensemble(*build, MLFLOW_TRACKING_URI=registry)
    if built.code:
        sys.exit(built.out)
    size = (out / "submission.zip").stat().st_size / 1e9
    rate = voxels / built.wall_s / 1e6
    print(f"build and check: {built.wall_s / 60:.1f} min (promised 15), {rate:.0f} Mvoxel/s", flush=True)
    print(f"peak memory: {built.peak_gib:.1f} GiB (promised 8)   zip: {size:.2f} GB (promised 2)", flush=True)
    print("\n".join(line for line in built.out.splitlines() if "larger voxels" in line or "checked" in line))
    planned = json.loads((out / "plan.json").read_text())["cost"]["peak_memory_bytes"] / 2**30
    print(f"the plan said at most {planned:.1f} GiB; shares of the voxels: {shares(out, targets)}")
    stages = json.loads((out / "costs.json").read_text())["stages"]
    took, page = next(s["seconds"] for s in stages if s["stage"] == "report"), (out / "report.html").stat().st_size
    print("\n".join(f"  {row['stage']:10} {row['seconds']:.0f} s" for row in stages))
    print(
        f"report: {took:.0f} s, {took / built.wall_s:.1%} of the build (promised 5%), {page / 1e6:.1f} MB (promised 20)"
    )
    if not arguments.crops:
        checked = ensemble("check", str(out / "submission.zip"))
        print(f"check: {checked.wall_s / 60:.1f} min (promised 8), {checked.peak_gib:.1f} GiB, exit {checked.code}")
    again = ensemble(*build, MLFLOW_TRACKING_URI=registry)
    print(f"the same build again: {again.wall_s:.1f} s (promised 5)")
    plan = ensemble("plan", f"{root}/recipe.yaml", "--data", root, *some, MLFLOW_TRACKING_URI=registry)
    print(f"its plan: {plan.wall_s:.1f} s (promised 4)")
    if arguments.dask:
        _with_dask(build, out, built, MLFLOW_TRACKING_URI=registry)


def _with_dask(build: Sequence[str], out: Path, here: Run, **environment: str) -> None:
    expected = _sha256(out / "submission.zip")
    shutil.rmtree(out)
    with cluster(out.parent / "cluster", PLAIN, PLAIN) as made:
        there = ensemble(*build, "--engine", str(made.file), **environment)
    if there.code:
        sys.exit(there.out)
    same = "the same zip" if _sha256(out / "submission.zip") == expected else "ANOTHER ZIP"
    share = there.wall_s / here.wall_s - 1
    print(f"with two workers of Dask: {there.wall_s / 60:.1f} min, {share:+.1%} (promised 5%), {same}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shares(out: Path, targets: Sequence[Target]) -> str:
    """How much of the crops that have it each class takes, as the build's check counted."""
    arrays = json.loads((out / "check.json").read_text())["arrays"]
    voxels: dict[str, list[int]] = {}
    for target in targets:
        for name, row in arrays[target.group].items():
            had, of = voxels.get(name, (0, 0))
            voxels[name] = [had + row["nonzero_voxels"], of + target.grid.size]
    return ", ".join(f"{name} {had / of:.2%}" for name, (had, of) in voxels.items())


if __name__ == "__main__":
    main()
