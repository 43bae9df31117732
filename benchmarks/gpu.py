"""Prediction on a GPU beside what bounds it: the bare forward passes of the same patches, and MONAI's inferer.

    python -m benchmarks.gpu [--device cuda:0] [--out build/gpu.json]

For each network, in one run on one device, seconds a patch: of a job as a build runs it, with the arithmetic, patches a
pass and compiling that the product chose; of the same network's bare forward passes; of MONAI's SlidingWindowInferer
with sums on the device (never compiled); of today's usual way, an eager forward pass under bfloat16 autocast; and of a
job with mirrored test-time augmentation. Then hours for the official manifest, and training steps. Without a GPU it
says so and ends; ``--device cpu`` runs all of it on small networks, which shows that it works and measures nothing.
"""

import argparse
import gc
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.gpu_training import measure_training, table
from benchmarks.inference import CLASSES, Case, prepared
from ensemble.core import Box, official_manifest, patch_starts
from ensemble.plan import Budget, Job, NetworkUse, Prepared, Request, patches_along, plain_use
from registry import Registry

GIB = 1 << 30
BARS = {"48 channels": 1.10, "1 channel": 1.05}
"""How many times as long as its bare forward passes a job may take."""

MEDNEXT = {
    "48 channels": Case("MedNeXtV1", {"size": "M", "kernel_size": 3}, 96, 432, channels=48, around=0),
    "1 channel": Case("MedNeXtV1", {"size": "L", "kernel_size": 3}, 96, 432, channels=1, around=0),
}
SMALL = {
    name: replace(case, architecture="UNet", arguments={"channels": [4, 8], "strides": [2]}, patch=32, side=80)
    for name, case in MEDNEXT.items()
}
VOXEL_NM = {"48 channels": 8.0, "1 channel": 4.0}


@dataclass(frozen=True)
class Measured:
    """Seconds a patch, and what they say."""

    network: str
    runs_in: str
    patches: int
    product_s: float
    bare_s: float
    monai_s: float
    autocast_s: float
    mirrored_s: float
    busy_percent: float | None
    mvoxel_per_s: float
    official_hours: float
    peak_gib: float

    @property
    def lines(self) -> list[str]:
        bar = BARS[self.network]
        busy = "" if self.busy_percent is None else f", GPU busy {self.busy_percent:.0f} % (at least 90)"
        return [
            f"{self.network}: {self.patches:,} patches, {self.runs_in}",
            f"  a job              {self.product_s:.4f} s/patch, {self.mvoxel_per_s:.1f} Mvoxel/s{busy}, "
            f"peak {self.peak_gib:.1f} GiB",
            f"  bare passes        {self.bare_s:.4f}: a job takes {self.product_s / self.bare_s:.3f}x (at most {bar})",
            f"  MONAI's inferer    {self.monai_s:.4f}: {self.monai_s / self.product_s:.2f}x a job (at least 2)",
            f"  eager autocast     {self.autocast_s:.4f}: {self.autocast_s / self.product_s:.2f}x a job (at least 1.5)",
            f"  mirrored           {self.mirrored_s:.4f}: {self.mirrored_s / self.product_s:.2f}x a job (at most 8.2)",
            f"  official manifest  {self.official_hours:.1f} h of predicting at {VOXEL_NM[self.network]:g} nm",
        ]


def measure(name: str, case: Case, device_name: str, work: Path) -> Measured:
    """One network on one device."""
    import torch

    from ensemble.predict import lent_gpu_bytes, settled_uses
    from ensemble.support import QuietProgress

    gc.collect()
    torch.cuda.empty_cache()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    request, ready, registry = prepared(case, work)
    device = torch.device(device_name)
    budget = Budget(8 * GIB, 4, on_cpu=device.type == "cpu", gpu_bytes=lent_gpu_bytes(device_name))
    request = replace(request, device=device_name, precision="auto", budget=budget)
    (job,) = ready.plan.jobs
    use = settled_uses(request, ready, registry, QuietProgress())[job.source]
    patches = Patches(job, ready, registry, device, use)
    if device.type == "cuda" and not use.is_compiled:
        patches = _if_faster(patches, Patches(job, ready, registry, device, replace(use, is_compiled=True, why="")))
    patches.product_s(request, tta="none", rows=2)  # what only the first passes pay for
    before_s = patches.bare_s()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    busy = Busy(device)
    with busy:
        product_s = patches.product_s(request, tta="none")
    peak = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else 0.0
    return Measured(
        name,
        patches.use.in_words,
        job.patches,
        product_s,
        (before_s + patches.bare_s()) / 2,
        patches.monai_s(),
        patches.autocast_s(),
        patches.product_s(request, tta="mirror", rows=1),
        busy.percent,
        job.lattice.size / 1e6 / (product_s * job.patches),
        product_s * official_patches(case, VOXEL_NM[name]) / 3600,
        peak,
    )


def _if_faster(eager: "Patches", compiled: "Patches") -> "Patches":
    """Compiled if that is faster, as it would be in a plan of hours."""
    began = time.perf_counter()
    fault = compiled.fault()
    if fault is not None:
        print(f"  cannot be compiled: {fault}", flush=True)
        return eager
    print(f"  compiled in {time.perf_counter() - began:.0f} s", flush=True)
    return compiled if compiled.bare_s() < eager.bare_s() else eager


class Patches:
    """The patches of a job on a device, run in several ways."""

    def __init__(self, job: Job, ready: Prepared, registry: Registry, device: Any, use: NetworkUse) -> None:
        self._job, self._ready, self._registry, self._device, self.use = job, ready, registry, device, use

    def fault(self) -> str | None:
        """What stands in the way of a first pass."""
        fault: str | None = self._runner.fault()
        return fault

    def _network(self) -> Any:
        from registry import load_network

        model = self._ready.models[self._job.source]
        return load_network(model.card, self._registry.weights(model)).to(self._device)

    @cached_property
    def _runner(self) -> Any:
        from ensemble.predict import Runner

        return Runner.of(self._network(), self._job, self._device, self.use)

    def product_s(self, request: Request, tta: str, rows: int | None = None) -> float:
        """A job as a build runs it, from EM on disk to bytes on disk; of its first rows of patches along z."""
        from ensemble.predict import (
            CPU,
            Network,
            Output,
            Section,
            fix_threads,
            frame_reader,
            open_prediction,
            predict_job,
            tissue_of,
        )

        job = self._job
        if rows is not None:
            depth = job.starts[0][rows - 1] + job.patch[0]
            box = Box((0, 0, 0), (depth, *job.lattice.shape[1:]))
            part = job.lattice.sub(box)
            job = replace(
                job,
                lattice=part,
                needed=box,
                stored=part,
                starts=(job.starts[0][:rows], *job.starts[1:]),
            )
        job = replace(job, tta=tta)  # type: ignore[arg-type]
        fix_threads(self._ready.threads)
        runner = self._runner.for_job(job)
        shutil.rmtree(request.out / "timed", ignore_errors=True)
        stored = open_prediction(request.out / "timed", tta, job)
        sums_on = self._device if request.budget.cut(job) is not None else CPU
        began = time.perf_counter()
        predict_job(
            job,
            Network(runner, runner.batch_size(), self._device),
            frame_reader(job, tissue_of(self._ready.em, job)),
            Output(Section(stored, job.stored.box), sums_on=sums_on),
        )
        return (time.perf_counter() - began) / job.patches

    def bare_s(self) -> float:
        """The network alone, in the arithmetic and with the patches a pass of the job."""
        import torch

        network, dtype = self._runner.network, next(self._runner.network.parameters()).dtype
        inputs = torch.rand((self.use.patches, 1, *self._job.patch), device=self._device, dtype=dtype)
        return self._repeated(lambda: network(inputs)) / self.use.patches

    def autocast_s(self) -> float:
        """An eager forward pass under bfloat16 autocast, as many do."""
        import torch

        network, batch = self._network(), plain_use(self._job, "32", "cpu")
        patches = 4 if batch is None or self._device.type == "cuda" else batch.patches
        inputs = torch.rand((patches, 1, *self._job.patch), device=self._device)

        def forward() -> None:
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                network(inputs)

        return self._repeated(forward) / patches

    def monai_s(self) -> float:
        """MONAI's sliding window over some of the volume, sums on the device: same arithmetic, not compiled."""
        import torch
        from monai.inferers import SlidingWindowInferer

        from ensemble.predict import Runner

        runner = Runner.of(self._network(), self._job, self._device, replace(self.use, is_compiled=False))
        patch, overlap = self._job.patch, self._job.model.card.overlap
        shape = [starts[min(3, len(starts) - 1)] + p for starts, p in zip(self._job.starts, patch, strict=True)]
        count = 1
        for n, p in zip(shape, patch, strict=True):
            count *= len(patch_starts(n, p, overlap))
        volume = torch.rand((1, 1, *shape), device=self._device)
        window = SlidingWindowInferer(
            patch, self.use.patches, overlap=overlap, mode="gaussian", device=self._device, sw_device=self._device
        )
        return self._repeated(lambda: window(volume, lambda x: runner(x[:, 0])), times=1) / count

    def _repeated(self, work: Callable[[], Any], times: int = 5) -> float:
        import torch

        with torch.inference_mode():
            work()
            self._wait()
            began = time.perf_counter()
            for _ in range(times):
                work()
            self._wait()
        return (time.perf_counter() - began) / times

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Busy:
    """How much of the time a GPU had work, as its driver tells; None where there is no GPU."""

    def __init__(self, device: Any) -> None:
        self._id = _uuid(device) if device.type == "cuda" else None
        self._seen: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Busy":
        if self._id is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._id is not None:
            self._thread.join()

    @property
    def percent(self) -> float | None:
        inside = self._seen[1:-1]
        return sum(inside) / len(inside) if inside else None

    def _watch(self) -> None:
        query = ["nvidia-smi", f"--id={self._id}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._over.wait(0.2):
            said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
            if said.isdigit():
                self._seen.append(int(said))


def _uuid(device: Any) -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def official_patches(case: Case, voxel_nm: float) -> int:
    """Patches over all crops of the official manifest, where the EM allows all the context that is wanted."""
    total = 0
    for target in official_manifest():
        if not set(target.classes) & set(CLASSES[: case.channels]):
            continue
        count, context = 1, 2 * (1 + -(-int(case.patch * case.overlap) // 2))
        for n in target.grid.covering((voxel_nm,) * 3).shape:
            count *= patches_along(n, n, n + context, case.patch, case.overlap)
        total += count
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("build/gpu.json"))
    parser.add_argument("--work", type=Path, default=Path("build/gpu"))
    arguments = parser.parse_args()
    import torch

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no GPU here that PyTorch can use: nothing was measured")
        return
    device = torch.device(arguments.device)
    card = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, small networks: no measure of anything"
    )
    print(f"{card}, torch {torch.__version__}", flush=True)
    found = []
    for name, case in (SMALL if device.type == "cpu" else MEDNEXT).items():
        found.append(measure(name, case, arguments.device, arguments.work / name.partition(" ")[0]))
        print("\n".join(found[-1].lines), flush=True)
    training = measure_training(device)
    print(table(training))
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    said = {"card": card, "torch": torch.__version__, "networks": [asdict(one) for one in found], "training": training}
    arguments.out.write_text(json.dumps(said, indent=1))
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
