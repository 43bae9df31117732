"""Inference from EM on disk to stored probabilities, beside the bare forward passes of the same patches.

    python -m benchmarks.inference [CASE …] [--work DIR]

Each case registers a network with random weights, plans and predicts one crop as a build does, in a process of
its own: wall time over that of as many forward passes of as many patches, patches over those planned, and peak
memory over what the plan said. The last case is about memory only: partial sums of 48 channels over 768³ in 3 GiB.
"""

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import forget_peak, in_a_process, peak_gib
from ensemble.core import Grid, Target, official_manifest, write_manifest
from ensemble.plan import Budget, Job, Prepared, Request, plain_use
from ensemble.support import keep_freed_memory
from registry import Architecture, Registry

CLASSES = official_manifest()[0].classes
GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    """A network, its patch, and a crop of ``side`` voxels in EM of ``around`` more to each side."""

    architecture: Architecture
    arguments: dict[str, Any]
    patch: int
    side: int
    channels: int = 1
    overlap: float = 0.5
    around: int = 16
    memory_gib: float = 8
    promised: str = "1.2"
    bare: bool = True


CASES = {
    "MedNeXt-S at 64³": Case("MedNeXt", {"init_filters": 32}, 64, 80, promised="1.05"),
    "the demo's 4 nm net at 48³": Case(
        "UNet", {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "norm": "batch"}, 48, 240
    ),
    "the demo's 8 nm net at 32³": Case(
        "UNet", {"channels": [16, 32, 64], "strides": [2, 2], "norm": "batch"}, 32, 200, channels=11
    ),
    "48 channels over 768³": Case(
        "UNet",
        {"channels": [8, 16], "strides": [2]},
        64,
        768,
        channels=48,
        overlap=0.25,
        around=0,
        memory_gib=3,
        promised="",
        bare=False,
    ),
}
SHORT = tuple(name for name, case in CASES.items() if case.bare)


def prepared(case: Case, work: Path) -> tuple[Request, Prepared, Registry]:
    """EM, manifest, recipe and a registered network under ``work``; what a build would make of them."""
    import torch

    from ensemble.demo import write_pyramid
    from ensemble.plan import prepare
    from ensemble.storage import em_place
    from registry import Card, new_network

    side = case.side + 2 * case.around
    em = np.random.default_rng(0).integers(1, 256, (side,) * 3, dtype=np.uint8)
    write_pyramid(Path(em_place(work, "d")), em, Grid(em.shape, (8, 8, 8), (4, 4, 4)), levels=1, chunk_voxels=64)
    classes = CLASSES[: case.channels]
    origin = (4 + 8 * case.around,) * 3
    write_manifest(work / "manifest.csv", [Target("1", "d", Grid((case.side,) * 3, (8, 8, 8), origin), classes)])
    (work / "recipe.yaml").write_text("name: r\nsources: {m: {model: 'models:/m@a'}}\ndefaults: {source: m}\n")
    card = Card(
        name="m",
        architecture=case.architecture,
        arguments=case.arguments,
        classes=classes,
        voxel_size_nm=(8, 8, 8),
        patch_voxels=(case.patch,) * 3,
        overlap=case.overlap,
        activation="sigmoid",
    )
    torch.manual_seed(0)
    torch.save(new_network(card).state_dict(), work / "m.pt")
    registry = Registry(f"sqlite:///{(work / 'mlflow.db').resolve()}")
    registry.register(work / "m.pt", card, alias="a")
    budget = Budget(int(case.memory_gib * GIB), 2)
    request = Request(work / "recipe.yaml", work / "out", work / "manifest.csv", str(work), device="cpu", budget=budget)
    return request, prepare(request, registry), registry


def _bare_s(network: Any, job: Job, batch_size: int, rows: int) -> float:
    """Seconds for the network alone over ``rows`` rows of the job's patches."""
    import torch

    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(rows):
            for begin in range(0, len(job.starts[2]), batch_size):
                network(torch.rand((min(batch_size, len(job.starts[2]) - begin), 1, *job.patch)))
    return time.perf_counter() - began


def measure(name: str, work: Path) -> dict[str, float]:
    """Run one case in this process; ``bare_s`` is interleaved with it, half before and half after."""
    case = CASES[name]
    keep_freed_memory()  # as the command line does
    request, ready, registry = prepared(case, work)
    (job,) = ready.plan.jobs

    import torch

    from ensemble.predict import (
        Network,
        Output,
        Runner,
        Section,
        fix_threads,
        frame_reader,
        open_prediction,
        predict_job,
        tissue_of,
    )
    from registry import load_network

    network = load_network(job.model.card, registry.weights(ready.models[job.source]))
    runner = Runner.of(network, job, torch.device("cpu"), plain_use(job, "32", "cpu"))
    fix_threads(ready.threads)
    rows = job.patches // len(job.starts[2])

    def bare(count: int) -> float:
        return _bare_s(network, job, runner.batch_size(), count)

    if case.bare:
        bare(1)  # the first pass pays for what the others find ready
    bare_s = bare(rows // 2) if case.bare else 0
    stored = open_prediction(request.out / "predictions", "k", job)
    spill_to = request.out / "scratch" if request.budget.spills(job) else None
    done = 0

    def progress(patches: int, planes: int) -> None:
        nonlocal done
        done += patches

    forget_peak()
    began = time.perf_counter()
    read = frame_reader(job, tissue_of(ready.em, job))
    predict_job(
        job,
        Network(runner, runner.batch_size()),
        read,
        Output(Section(stored, job.stored.box), spill_to=spill_to),
        progress,
    )
    wall, peak = time.perf_counter() - began, peak_gib()
    bare_s += bare(rows - rows // 2) if case.bare else 0
    return {
        "wall_s": wall,
        "bare_s": bare_s,
        "peak_gib": peak,
        "patches": done,
        "planned_patches": job.patches,
        "planned_gib": request.budget.predicting_bytes(job) / GIB,
        "spills": spill_to is not None,
        "mvoxel": job.lattice.size / 1e6,
    }


def report(names: list[str], work: Path) -> None:
    """A line for each case."""
    for name in names:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        got, _ = in_a_process("benchmarks.inference", name, "--work", str(work), "--alone")
        case = CASES[name]
        ratio = f"{got['wall_s'] / got['bare_s']:.3f}x the bare passes (promised {case.promised})" if case.bare else ""
        sums = ", sums on disk" if got["spills"] else ""
        print(
            f"{name:28}{got['wall_s']:8.1f} s {got['mvoxel'] / got['wall_s']:6.2f} Mvoxel/s   {ratio}\n"
            f"{'':28}{got['patches']:,} patches of {got['planned_patches']:,} planned; peak {got['peak_gib']:.2f} GiB, "
            f"planned {got['planned_gib']:.2f}, lent {case.memory_gib:g}{sums}",
            flush=True,
        )
    shutil.rmtree(work, ignore_errors=True)


def main(names: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--work", type=Path, default=Path("build/inference"))
    parser.add_argument("--alone", action="store_true", help="one, here, as JSON")
    arguments = parser.parse_args([] if names is not None else None)
    if arguments.alone:
        print(json.dumps(measure(arguments.cases[0], arguments.work)))
    else:
        report(list(names or arguments.cases or CASES), arguments.work)


if __name__ == "__main__":
    main()
