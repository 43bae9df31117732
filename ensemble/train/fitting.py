"""The loop of a training, which is Lightning's: with its checkpoints, on one device or on several."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from ensemble.support import TrainingError
from ensemble.train.lightning_module import Reporting, Specialist, Stopping
from ensemble.train.loading import Patches
from ensemble.train.preparation import FOLDER_TOLD
from ensemble.train.spec import TrainingSpec
from ensemble.train.stopping import StopRequest

LAST, BEST = "last.ckpt", "best.ckpt"
_TOLD_TO_HELPERS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", FOLDER_TOLD)


def fit(module: Specialist, patches: Patches, folder: Path, reporting: Reporting, request: StopRequest) -> None:
    """Train until the spec's steps are done or ``patience`` is at an end; leaves last.ckpt and best.ckpt.

    Goes on from ``folder``'s last.ckpt if there is one. Ctrl-C raises KeyboardInterrupt and leaves the
    checkpoints of the last validation; a request to stop raises TrainingStopped and leaves one of the last step.
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
    with _quiet(), _environment_kept():
        os.environ[FOLDER_TOLD] = str(folder.resolve())
        trainer = pl.Trainer(
            # Not max_steps: Lightning then takes a checkpoint from the end of an epoch for one from its midst.
            max_epochs=-(-spec.steps // spec.validate_every),
            accelerator="auto",
            devices=spec.devices,
            strategy="ddp" if spec.devices > 1 else "auto",
            # What Lightning makes of SLURM's variables would wait for processes that nobody starts.
            plugins=[LightningEnvironment()],
            default_root_dir=folder,
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
            callbacks=[reporting, Stopping(request, folder / LAST), *stop, keep, *([kept] if spec.keep else [])],
        )
        # Else torch writes to all memory that it takes, in every layer, lest somebody read what was not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not annotated
        last = folder / LAST
        with _interruptible(trainer), _told_of_the_spec(spec), request.steps():
            start = last if last.exists() else None
            try:
                trainer.fit(module, datamodule=patches, ckpt_path=start, weights_only=True)
            except BaseException:
                _end_helpers(trainer)
                raise
            finally:
                patches.close()
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()


def _end_helpers(trainer: pl.Trainer) -> None:
    """End the processes that train beside this one: they would wait for it."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        launcher.procs.clear()  # else Lightning, which watches over these, kills this process too


@contextmanager
def _told_of_the_spec(spec: TrainingSpec) -> Iterator[None]:
    """Say of what torch refuses which key of the spec to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        more = "" if spec.checkpointing else " or say checkpointing: true"
        raise TrainingError(
            f"{spec.where('batch_size')}: {spec.batch_size} patches of {list(spec.patch_voxels)} do not"
            f" fit into the GPU's memory; lower batch_size (and raise accumulate) or patch_voxels{more}"
        ) from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise TrainingError(
            f"{spec.where('compile')}: the network cannot be compiled here ({str(error).strip().splitlines()[0]});"
            " say compile: false"
        ) from error


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what Lightning tells the processes it starts: the next training starts its own."""
    before = {name: os.environ.get(name) for name in _TOLD_TO_HELPERS}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)


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
