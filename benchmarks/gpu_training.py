"""Training as ``ensemble train`` does it, beside bare training steps on the same batches.

    python -m benchmarks.gpu_training [--device cpu|cuda] [--work DIR]

Patches are read from EM and truth on disk, as far as the loop is concerned. On a GPU the network is MedNeXt-S at 64³,
two patches a step; on the CPU one so small that it shows no more than that all of this works.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import peak_gib
from ensemble.core import Grid
from ensemble.train import TrainingSpec
from ensemble.train.preparation import Task, prepared, silent  # what `train` does before and in its loop
from ensemble.train.stopping import StopRequest
from registry import Registry

WARM_UP_STEPS = 20
BATCHES = 8
"""Of the loop's own, that the bare steps learn from."""


@dataclass(frozen=True)
class Case:
    """A MedNeXt-S of ``filters``, its patches, and the steps that are timed over EM of ``side`` voxels."""

    filters: int
    patch: int
    steps: int
    side: int
    precision: str
    checkpointing: bool = False
    compiled: bool = False


CASES = {"cuda": Case(32, 64, 300, 384, "bf16-mixed"), "cpu": Case(2, 32, 60, 96, "32")}


def measure_training(device: Any, case: Case | None = None, work: Path | None = None) -> dict[str, float]:
    """Steps a second of the loop and of bare steps, their ``ratio``, and the share of time the loop is ``waiting``.

    ``bare_steps_per_s`` is with torch as it comes, ``bare_repeatable_steps_per_s`` with the repeatable algorithms that
    trainings on a GPU use; the ratio is that of the former. ``device`` is "cpu" where there is no GPU, else "cuda": a
    training chooses for itself.
    """
    import torch

    from ensemble.train.fitting import fit
    from ensemble.train.lightning_module import Reporting

    kind = torch.device(device).type
    if (kind == "cuda") != torch.cuda.is_available():
        raise ValueError(f"{kind}: a training here is on {'the GPU' if torch.cuda.is_available() else 'the CPU'}")
    case = case or CASES[kind]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        task = _task(case, Path(folder))
        task.blocks.mkdir()
        module, patches = prepared(task, Registry(f"sqlite:///{folder}/mlflow.db"), silent)
        times: list[tuple[int, float, float]] = []

        def on_loss(step: int, loss: float, waiting: float) -> None:
            times.append((step, time.perf_counter(), waiting))

        if kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        reporting = Reporting(module.spec, on_loss, lambda step, scores: None)
        fit(module, patches, Path(folder), reporting, StopRequest(module.spec.name))
        peak = torch.cuda.max_memory_allocated() / 2**30 if kind == "cuda" else peak_gib()
        timed = [told for told in times if told[0] >= WARM_UP_STEPS]
        loop = (timed[-1][0] - timed[0][0]) / (timed[-1][1] - timed[0][1])
        module.to(kind).train()
        batches = _batches(module, patches, kind)
        plain, repeatable = (_bare(module, batches, case, kind, repeatable=again) for again in (False, True))
    return {
        "steps_per_s": loop,
        "waiting": float(np.mean([waiting for _, _, waiting in timed[1:]])),
        "bare_steps_per_s": plain,
        "bare_repeatable_steps_per_s": repeatable,
        "ratio": plain / loop,
        "peak_gib": peak,
        "steps": timed[-1][0] - timed[0][0],
    }


def _task(case: Case, folder: Path) -> Task:
    """EM and truth of noise on disk, opened as a spec's crop."""
    from ensemble.demo import write_pyramid
    from ensemble.storage import em_place, truth_place
    from ensemble.train.crops import open_crops

    spec = TrainingSpec(
        name="measured",
        architecture="MedNeXtV1",
        arguments={"size": "S", "kernel_size": 3, "init_filters": case.filters, "deep_supervision": True},
        classes=("mito",),
        voxel_size_nm=8,
        patch_voxels=case.patch,
        crops={"d": ("1",)},
        steps=WARM_UP_STEPS + case.steps,
        validate_every=WARM_UP_STEPS + case.steps,
        batch_size=2,
        learning_rate=1e-4,
        loss="bce_dice",
        precision=case.precision,
        augment=("mirror", "transpose", "rotate", "intensity"),
        checkpointing=case.checkpointing,
        compile=case.compiled,
    )
    grey = np.random.default_rng(0).integers(1, 256, (case.side,) * 3, dtype=np.uint8)
    grid = Grid(grey.shape, (8, 8, 8), (4, 4, 4))
    for place, values in ((em_place(folder, "d"), grey), (f"{truth_place(folder, 'd', '1')}/mito", grey // 200)):
        write_pyramid(Path(place), values, grid, levels=1, chunk_voxels=64)
    crops = open_crops(folder, spec.crops, spec, "crops")
    return Task(spec, spec.card(), crops, (), None, "0" * 64, folder)


def _batches(module: Any, patches: Any, kind: str) -> list[Any]:
    """Some batches of the training, as the network is shown them."""
    patches.trainer = None  # from the first
    shown = [
        module.on_after_batch_transfer(type(batch)(batch.grey.to(kind), batch.codes.to(kind), batch.views), 0)
        for batch, _ in zip(patches.train_dataloader(), range(BATCHES), strict=False)
    ]
    patches.close()
    return shown


@contextmanager
def _algorithms(*, repeatable: bool) -> Iterator[None]:
    import torch

    torch.use_deterministic_algorithms(repeatable, warn_only=True)
    torch.backends.cudnn.deterministic = repeatable
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _bare(module: Any, batches: list[Any], case: Case, kind: str, *, repeatable: bool) -> float:
    """Steps a second of a loop that does nothing else."""
    import torch

    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-5)
    half = torch.autocast(kind, torch.bfloat16, enabled=case.precision == "bf16-mixed")

    def steps(count: int) -> float:
        began = time.perf_counter()
        for i in range(count):
            with half:
                loss = module.training_step(batches[i % len(batches)], i)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize()
        return count / (time.perf_counter() - began)

    with _algorithms(repeatable=repeatable):
        steps(WARM_UP_STEPS)
        return steps(case.steps)


def table(measured: dict[str, float]) -> str:
    """What was measured, a line each."""
    return (
        f"training                {measured['steps_per_s']:8.2f} steps/s\n"
        f"waiting for patches     {measured['waiting']:8.1%} of the time (bar: 5%)\n"
        f"bare steps              {measured['bare_steps_per_s']:8.2f} steps/s\n"
        f"  repeatable            {measured['bare_repeatable_steps_per_s']:8.2f} steps/s\n"
        f"bare / training         {measured['ratio']:8.2f}x (bar: 1.10x)\n"
        f"peak memory             {measured['peak_gib']:8.2f} GiB"
    )


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_training", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, help="for EM and truth (default: the system's temporary folder)")
    arguments = parser.parse_args()
    print(table(measure_training(arguments.device, work=arguments.work)))


if __name__ == "__main__":
    main()
