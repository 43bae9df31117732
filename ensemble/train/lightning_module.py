"""A network being trained: what it is shown, what it is told, and how it is judged (PyTorch Lightning)."""

import logging
import math
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ensemble.support import TrainingError
from ensemble.train.crops import UNKNOWN, Patch
from ensemble.train.losses import ValidationScores, overlaps, scores_of, supervised_loss, target_of
from ensemble.train.sampling import ValidationPatches
from ensemble.train.spec import TrainingSpec

WARM_UP_SHARE = 0.02
REPORT_EVERY = 10
LAST, BEST = "last.ckpt", "best.ckpt"


class Batches:
    """Patches in batches, in order, the next ones prepared by other threads meanwhile.

    A batch is (grey as the network expects it, float32 (B, 1, z, y, x); truth codes, uint8 (B, C, z, y, x)).
    """

    def __init__(self, patch: Callable[[int], Patch], numbers: range, spec: TrainingSpec, threads: int = 1) -> None:
        self._patch, self._numbers, self._spec, self._threads = patch, numbers, spec, threads

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._spec.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._spec.batch_size
        parts = iter([self._numbers[i : i + size] for i in range(0, len(self._numbers), size)])
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="patches")
        try:
            for part in parts:
                waiting.append(pool.submit(self._batch, part))
                if len(waiting) > self._threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, numbers: range) -> tuple[Tensor, Tensor]:
        patches = [self._patch(number) for number in numbers]
        grey = np.stack([self._spec.normalisation.apply(patch.grey) for patch in patches])
        codes = np.stack([patch.codes for patch in patches])
        return torch.from_numpy(grey.astype(np.float32, copy=False))[:, None], torch.from_numpy(codes)


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

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        grey, codes = batch
        return supervised_loss(self(grey), target_of(codes), self.spec.loss)

    def on_validation_epoch_start(self) -> None:
        classes = len(self.spec.classes)
        self._counts = torch.zeros((classes, 3), dtype=torch.int64, device=self.device)
        self._annotated = torch.zeros(classes, dtype=torch.bool, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        grey, codes = batch
        self._counts += overlaps(self(grey), codes)
        self._annotated |= (codes != UNKNOWN).any(dim=4).any(dim=3).any(dim=2).any(dim=0)

    def on_validation_epoch_end(self) -> None:
        counts, annotated = self._counts.cpu().numpy(), self._annotated.cpu().tolist()
        self.scores = scores_of(counts, annotated, self.spec.classes)
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


class Patches(pl.LightningDataModule):
    """What is shown in each epoch, that is until the next validation: the patches that the step count says.

    So training that was interrupted after a validation goes on with the very patches it would have seen.
    """

    def __init__(self, spec: TrainingSpec, training: Callable[[int], Patch], validation: ValidationPatches) -> None:
        super().__init__()
        self._spec, self._training, self._validation = spec, training, validation

    def train_dataloader(self) -> Batches:
        spec = self._spec
        done = 0 if self.trainer is None else self.trainer.global_step
        patches_per_step = spec.accumulate * spec.batch_size
        stop = min(spec.steps, done + spec.validate_every)
        numbers = range(done * patches_per_step, stop * patches_per_step)
        return Batches(self._training, numbers, spec, _threads())

    def val_dataloader(self) -> Batches:
        numbers = range(len(self._validation))
        return Batches(self._validation.patch, numbers, self._spec, _threads())


def _threads() -> int:
    """One thread suffices beside a network on the CPU; a GPU wants more to keep it busy."""
    return max(1, min(4, (os.cpu_count() or 1) - 1)) if torch.cuda.is_available() else 1


class Reporting(Callback):
    """Tells ``on_loss(step, mean loss)`` every few steps and ``on_scores(step, scores)`` at validations.

    Raises TrainingError when the loss is no longer a number.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        on_loss: Callable[[int, float], None],
        on_scores: Callable[[int, ValidationScores], None],
    ) -> None:
        self._spec = spec
        self._on_loss, self._on_scores = on_loss, on_scores
        self._losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        step, last = trainer.global_step, index + 1 == trainer.num_training_batches
        if last or len(self._losses) == REPORT_EVERY * trainer.accumulate_grad_batches:
            loss = float(torch.stack(self._losses).mean())
            self._losses = []
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{self._spec.where('learning_rate')}: the loss is no longer finite at step {step};"
                    " lower the learning rate"
                )
            self._on_loss(step, loss)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Specialist)  # it is only given to trainers of one
        self._on_scores(trainer.global_step, module.scores)


def fit(module: Specialist, patches: Patches, folder: Path, reporting: Reporting) -> None:
    """Train until the spec's steps are done or ``patience`` is at an end; leaves last.ckpt and best.ckpt.

    Goes on from ``folder``'s last.ckpt if there is one. Ctrl-C raises KeyboardInterrupt and leaves the
    checkpoints of the last validation.
    """
    spec = module.spec
    validates = bool(spec.validation_crops)
    keep = ModelCheckpoint(
        dirpath=folder,
        filename=Path(BEST).stem,
        monitor="dice" if validates else None,
        mode="max",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    kept = ModelCheckpoint(
        dirpath=folder,
        filename="step-{step:07d}",
        auto_insert_metric_name=False,
        monitor="step",
        mode="max",
        save_top_k=spec.keep,
        save_weights_only=True,
        save_on_train_epoch_end=True,
    )
    stop = [EarlyStopping("dice", patience=spec.patience, mode="max")] if validates else []
    with _quiet():
        trainer = pl.Trainer(
            # Not max_steps: Lightning then takes a checkpoint from the end of an epoch for one from its midst.
            max_epochs=-(-spec.steps // spec.validate_every),
            accelerator="auto",
            devices=1,
            precision=spec.precision,
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.gradient_clip or None,
            reload_dataloaders_every_n_epochs=1,
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            deterministic="warn" if torch.cuda.is_available() else False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[reporting, *stop, keep, *([kept] if spec.keep else [])],
        )
        last = folder / LAST
        with _interruptible(trainer):
            start = last if last.exists() else None
            try:
                trainer.fit(module, datamodule=patches, ckpt_path=start, weights_only=True)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"{spec.where('batch_size')}: {spec.batch_size} patches of {list(spec.patch_voxels)} do not"
                    " fit into the GPU's memory; lower batch_size (and raise accumulate) or patch_voxels"
                ) from error


@contextmanager
def _interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Give Ctrl-C back to the caller: Lightning would make a plain exit of it and ignore any later one."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from stopped.__context__
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning says about its own workings from the user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
