"""A network being trained: what it is shown, what it is told, and how it is judged (PyTorch Lightning)."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ensemble.support import TrainingError
from ensemble.train.augmentation import shown
from ensemble.train.crops import UNKNOWN
from ensemble.train.loading import Batch, Patches
from ensemble.train.losses import ValidationScores, overlaps, scores_of, supervised_loss, target_of
from ensemble.train.spec import TrainingSpec
from ensemble.train.stopping import StopRequest

WARM_UP_SHARE = 0.02
REPORT_EVERY = 10


class Specialist(pl.LightningModule):
    """A network with its loss, its optimizer and its validation scores.

    ``counts`` and ``annotated`` gather, class by class, what a validation has seen so far; ``scores`` are
    those of the last one. ``lineage`` goes into the checkpoints.
    """

    def __init__(self, network: nn.Module, spec: TrainingSpec, lineage: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.network, self.spec, self._lineage = network, spec, dict(lineage or {})
        self.scores: ValidationScores = {}
        self._counts = self._annotated = torch.zeros(0)

    def forward(self, grey: Tensor) -> Any:
        return self.network(grey)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """The patches as their views show them, grey values as the network expects them."""
        grey, codes = shown(*batch) if batch.views else (batch.grey, batch.codes)
        return self.spec.normalisation.apply(grey), codes

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        grey, codes = batch
        return supervised_loss(self(grey), target_of(codes), self.spec.loss)

    def on_validation_epoch_start(self) -> None:
        classes = len(self.spec.classes)
        self._counts = torch.zeros((classes, 3), dtype=torch.int64, device=self.device)
        self._annotated = torch.zeros(classes, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        grey, codes = batch
        self._counts += overlaps(self(grey), codes)
        self._annotated |= (codes != UNKNOWN).any(dim=4).any(dim=3).any(dim=2).any(dim=0)

    def on_validation_epoch_end(self) -> None:
        counts, annotated = (
            self.trainer.strategy.reduce(of_this_process, reduce_op="sum").cpu().numpy()
            for of_this_process in (self._counts, self._annotated)
        )
        self.scores = scores_of(counts, annotated > 0, self.spec.classes)
        self.log("dice", mean_dice(self.scores))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["scores"] = self.scores
        lengths = {"voxel_size_nm": self.spec.voxel_size_nm, "patch_voxels": self.spec.patch_voxels}
        checkpoint["hyper_parameters"] = {"classes": list(self.spec.classes), **lengths, **self._lineage}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.scores = checkpoint["scores"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.spec.learning_rate, weight_decay=self.spec.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, self.spec))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def mean_dice(scores: ValidationScores) -> float:
    return float(np.mean([score["dice"] for score in scores.values()])) if scores else math.nan


def rate(step: int, spec: TrainingSpec) -> float:
    """The share of the learning rate at a step: "cosine" rises over the first steps, then falls to 0."""
    if spec.schedule == "constant":
        return 1.0
    warm_up = max(1, round(WARM_UP_SHARE * spec.steps))
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / spec.steps))


class Reporting(Callback):
    """Tells ``on_loss(step, mean loss, waiting)`` every few steps and ``on_scores(step, scores)`` at validations.

    ``waiting`` is the share of the time since it last told that went by without a batch to learn from. Checkpoints
    keep the losses that it has not told yet. Raises TrainingError when the loss is no longer a number.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        on_loss: Callable[[int, float, float], None],
        on_scores: Callable[[int, ValidationScores], None],
    ) -> None:
        self._spec = spec
        self._on_loss, self._on_scores = on_loss, on_scores
        self._losses: list[Tensor] = []
        self._began = self._waited_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self._losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._losses = list(state_dict["losses"])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._losses = [loss.to(module.device) for loss in self._losses]
        self._began, self._waited_s = time.perf_counter(), _waited_s(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._began, self._waited_s = time.perf_counter(), _waited_s(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        step, last = trainer.global_step, index + 1 == trainer.num_training_batches
        if last or len(self._losses) == REPORT_EVERY * trainer.accumulate_grad_batches:
            # Of all processes, so that all of them stop where it is no number.
            loss = float(trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean"))
            self._losses = []
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{self._spec.where('learning_rate')}: the loss is no longer finite at step {step};"
                    " lower the learning rate"
                )
            now, waited_s = time.perf_counter(), _waited_s(trainer)
            self._on_loss(step, loss, (waited_s - self._waited_s) / (now - self._began))
            self._began, self._waited_s = now, waited_s

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Specialist)  # it is only given to trainers of one
        self._on_scores(trainer.global_step, module.scores)


def _waited_s(trainer: pl.Trainer) -> float:
    patches: object = getattr(trainer, "datamodule", None)
    assert isinstance(patches, Patches)  # trainers here have no other
    return patches.waited_s


class Stopping(Callback):
    """Ends a training that was asked to: TrainingStopped is raised once ``checkpoint`` is of the last step.

    Processes that train together end after the same step, whichever of them was asked.
    """

    def __init__(self, request: StopRequest, checkpoint: Path) -> None:
        self._request, self._checkpoint = request, checkpoint

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._request.listen()  # Lightning, whose SIGTERM leaves no checkpoint, listens now

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._is_asked(trainer):  # since the last step: during a validation, whose checkpoint was saved
            raise self._request.stopped(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        done = index + 1
        of_a_step, of_a_validation = done % trainer.accumulate_grad_batches == 0, done == trainer.num_training_batches
        if of_a_step and not of_a_validation and self._is_asked(trainer):
            trainer.save_checkpoint(self._checkpoint)
            raise self._request.stopped(trainer.global_step)

    def _is_asked(self, trainer: pl.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._request.signal is not None, all=False)
