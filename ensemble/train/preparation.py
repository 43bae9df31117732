"""A training made ready: its network as it is at the first step, and what it will be shown."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.support import TrainingError, default_memory_bytes
from ensemble.train.block_files import BlockFiles
from ensemble.train.crops import AnnotatedCrop
from ensemble.train.patch_cache import CACHE_BYTES, PatchReader
from ensemble.train.sampling import Foreground, PatchSampler, ValidationPatches, index_foreground
from ensemble.train.spec import TrainingSpec
from registry import Card, ModelVersion, Registry

if TYPE_CHECKING:
    from ensemble.train.lightning_module import Specialist
    from ensemble.train.loading import Patches

TRAINING_SHARE = 0.75
"""Of the memory for blocks of crops, what training has; the rest is validation's."""

MEMORY_SHARE = 0.5
"""Of the memory that a build would stay within, what blocks of crops have beside a GPU, whose computer has plenty."""


FOLDER_TOLD = "ENSEMBLE_TRAINS_IN"
"""The variable that tells processes which of a program's trainings they are started for."""

OnProgress = Callable[[float, str], None]
"""Told of the steps that are done, and of what is at work."""


def silent(done: float, what: str) -> None:
    """Nobody is watching."""


def is_helper(folder: Path) -> bool:
    """Whether this process was started for the training in ``folder`` by the one that writes, logs and registers."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and os.environ.get(FOLDER_TOLD) == str(folder.resolve())


@dataclass(frozen=True)
class Task:
    """A training that is possible: what it learns from, and the folder where its checkpoints lie."""

    spec: TrainingSpec
    card: Card
    training: tuple[AnnotatedCrop, ...]
    validation: tuple[AnnotatedCrop, ...]
    begun: ModelVersion | None
    digest: str
    folder: Path

    @property
    def blocks(self) -> Path:
        """Where processes that read share what they have computed."""
        return self.folder / "blocks"

    @property
    def lineage(self) -> dict[str, str]:
        """What the weights began as, for cards and checkpoints."""
        parent = {"fine_tuned_from": self.begun.uri} if self.begun else {}
        return {"origin": f"training {self.digest[:16]}", **parent}


def prepared(task: Task, registry: Registry, progress: OnProgress) -> "tuple[Specialist, Patches]":
    """The network as it is when training begins, and what it will be shown."""
    # Threads that wait for each other by spinning are several times slower where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from ensemble.train.acceleration import accelerate
    from ensemble.train.lightning_module import Specialist
    from ensemble.train.loading import Patches, workers_for
    from registry import load_network, new_network

    spec = task.spec
    _check_device(spec)
    torch.manual_seed(spec.seed)
    network = new_network(task.card, spec.file)
    if task.begun is not None:
        network.load_state_dict(load_network(task.begun.card, registry.weights(task.begun)).state_dict())
    accelerate(network, spec)
    foreground = _foreground(task, progress)
    on_gpu = torch.cuda.is_available()
    workers = workers_for(spec, on_gpu=on_gpu)
    cache_bytes = max(CACHE_BYTES, int(MEMORY_SHARE * default_memory_bytes()) if on_gpu else 0)
    each_bytes = cache_bytes // (max(1, workers) * (spec.devices if on_gpu else 1))
    train_bytes = int(each_bytes * TRAINING_SHARE)
    shared = [
        BlockFiles(task.blocks / name) if workers * spec.devices > 1 else None for name in ("training", "validation")
    ]
    sampler = PatchSampler(PatchReader(task.training, train_bytes, shared[0]), spec, foreground)
    judged = ValidationPatches(PatchReader(task.validation, each_bytes - train_bytes, shared[1]), spec.patch_voxels)
    return Specialist(network, spec, task.lineage), Patches(spec, sampler.patch, judged, workers)


def _foreground(task: Task, progress: OnProgress) -> Foreground:
    spec = task.spec

    def at(done: int, total: int) -> None:
        progress(0, f"read crop {done} of {total}")

    foreground = index_foreground(task.training, len(spec.classes), spec.seed, at)
    for channel, by_crop in enumerate(foreground):
        if not by_crop:
            raise TrainingError(
                f"{spec.where('classes', channel)}: {spec.classes[channel]} has not one voxel in the training"
                " crops; take it out, or add a crop that has it"
            )
    return foreground


def _check_device(spec: TrainingSpec) -> None:
    import torch

    gpus = torch.cuda.device_count()
    if spec.precision == "16-mixed" and not gpus:
        raise TrainingError(
            f"{spec.where('precision')}: 16-mixed needs a CUDA GPU, and there is none here; use bf16-mixed or '32'"
        )
    if 0 < gpus < spec.devices:
        raise TrainingError(f"{spec.where('devices')}: {spec.devices} are wanted, and there are {gpus} GPUs here")
