"""Patches on their way to a network: read by other processes, in the order in which they are wanted.

One stream serves a whole training, patches of validations between those of steps, so that nobody waits where one
ends and the other begins: the processes read on, a few batches ahead, while the network is at work.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ensemble.support import EnsembleError, TrainingError, cores, end_with_parent
from ensemble.train.augmentation import shown
from ensemble.train.crops import Patch
from ensemble.train.spec import TrainingSpec
from ensemble.train.stopping import leave_stopping_to_the_parent
from ensemble.train.views import View

MOST_WORKERS = 8
BATCHES_AHEAD = 2
"""By each process."""
BYTES_AHEAD = 1 << 30
"""Of all batches that wait, in memory that processes share."""
SHARED_MEMORY = Path("/dev/shm")


class Batch(NamedTuple):
    """Grey values, uint8 or float32 (B, 1, z, y, x); truth codes, uint8 (B, C, z, y, x); views yet to be shown."""

    grey: Tensor
    codes: Tensor
    views: tuple[View, ...]


class Judged(Protocol):
    """Patches of a validation: ``len`` of them, and any number more that judge nothing."""

    def __len__(self) -> int: ...

    def patch(self, number: int) -> Patch: ...


class Wanted(NamedTuple):
    """A batch: the patches of these numbers, of the validation or of the training."""

    of_validation: bool
    numbers: range


class Turns(NamedTuple):
    """Which of the processes that share a training this is: batches go round."""

    rank: int = 0
    processes: int = 1

    def numbers(self, batch: int, size: int) -> range:
        """Of this process's batch of that number."""
        begin = (batch * self.processes + self.rank) * size
        return range(begin, begin + size)


ALONE = Turns()


class Schedule:
    """All batches that a training wants from a step on: those up to each validation, then those it is judged by."""

    def __init__(self, spec: TrainingSpec, judged: int, turns: Turns = ALONE, done: int = 0) -> None:
        self._spec, self._turns, self._done = spec, turns, done
        self.validation_batches = -(-judged // (spec.batch_size * turns.processes))

    def stop(self, step: int) -> int:
        """The step at which the next validation is."""
        return min(self._spec.steps, self.start(step) + self._spec.validate_every)

    def start(self, step: int) -> int:
        """The step at which the last validation was: that one, if it is after it that a validation comes."""
        return step - step % self._spec.validate_every

    def __iter__(self) -> Iterator[Wanted]:
        spec, step = self._spec, self._done
        while step < spec.steps:
            for batch in range(step * spec.accumulate, self.stop(step) * spec.accumulate):
                yield Wanted(of_validation=False, numbers=self._turns.numbers(batch, spec.batch_size))
            for batch in range(self.validation_batches):
                yield Wanted(of_validation=True, numbers=self._turns.numbers(batch, spec.batch_size))
            step = self.stop(step)


class Batches(Dataset[Batch | EnsembleError]):
    """The batch that is wanted, or why there is none: an error raised would come out with the process's traceback.

    ``in_view`` says that whoever reads the patches also shows them in their views, not whoever learns from them.
    """

    def __init__(self, training: Callable[[int], Patch], validation: Judged, *, in_view: bool) -> None:
        self._training, self._validation, self._in_view = training, validation, in_view

    def __getitem__(self, wanted: Wanted) -> Batch | EnsembleError:
        patch = self._validation.patch if wanted.of_validation else self._training
        try:
            patches = [patch(number) for number in wanted.numbers]
        except EnsembleError as error:
            return error
        grey, codes = np.stack([p.grey for p in patches]), np.stack([p.codes for p in patches])
        batch = Batch(torch.from_numpy(grey)[:, None], torch.from_numpy(codes), tuple(p.view for p in patches))
        return Batch(*shown(*batch), ()) if self._in_view else batch


def _as_it_is(batch: Any) -> Any:
    return batch


class Part:
    """``count`` batches of a stream, of which the first ``done`` were shown before this process began."""

    def __init__(self, stream: "Patches", count: int, done: int = 0) -> None:
        self._stream, self._count, self._done = stream, count, done

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        return (self._stream.next_batch() for _ in range(self._done, self._count))


class Patches(pl.LightningDataModule):
    """What is shown in each epoch, that is until the next validation: the patches that the step count says.

    So training that was interrupted after a step goes on with the very patches it would have seen, however many
    ``workers`` read them (with none, this process does). ``waited_s`` counts the time in which no batch was ready.
    """

    def __init__(
        self, spec: TrainingSpec, training: Callable[[int], Patch], validation: Judged, workers: int = 0
    ) -> None:
        super().__init__()
        self._spec, self._judged = spec, len(validation)
        # Beside a network on the CPU, the process that reads has time for it; a GPU does it in none.
        self._batches = Batches(training, validation, in_view=not torch.cuda.is_available())
        self._workers = workers
        self._stream: Iterator[Batch | EnsembleError] | None = None
        self.waited_s = 0.0

    def train_dataloader(self) -> Part:
        step, schedule = self._step(), self._schedule()
        if self._stream is None:
            self._stream = iter(self._loader(schedule))
        begun = schedule.start(step)
        accumulate = self._spec.accumulate
        return Part(self, (schedule.stop(step) - begun) * accumulate, (step - begun) * accumulate)

    def val_dataloader(self) -> Part:
        return Part(self, self._schedule().validation_batches)

    def next_batch(self) -> Batch:
        """The batch that comes next. Raises what reading it raised."""
        assert self._stream is not None  # parts are made after it
        began = time.perf_counter()
        try:
            batch = next(self._stream)
        except RuntimeError as error:  # what torch makes of a process that was killed
            raise TrainingError(
                f"{self._spec.where('batch_size')}: a process that reads patches ended ({_first_line(error)}); lower"
                " batch_size, or give more memory, or shared memory in /dev/shm"
            ) from error
        self.waited_s += time.perf_counter() - began
        if isinstance(batch, EnsembleError):
            raise batch
        return batch

    def close(self) -> None:
        """End the processes."""
        self._stream = None

    def _step(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_step

    def _schedule(self) -> Schedule:
        turns = ALONE if self.trainer is None else Turns(self.trainer.global_rank, self.trainer.world_size)
        return Schedule(self._spec, self._judged, turns, self._step())

    def _loader(self, schedule: Schedule) -> DataLoader[Batch | EnsembleError]:
        return DataLoader(
            self._batches,
            batch_size=None,
            sampler=schedule,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            prefetch_factor=BATCHES_AHEAD if self._workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_of_its_parent,
        )


def _of_its_parent(_: int) -> None:
    """A process that trains may be killed while it holds what its readers wait for: they end with it, not before."""
    end_with_parent()
    leave_stopping_to_the_parent()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def workers_for(spec: TrainingSpec, *, on_gpu: bool) -> int:
    """How many processes read for each that trains: one beside a network on the CPU; a GPU wants more to keep busy.

    None where the memory that processes share has no room for their batches.
    """
    batch_bytes = spec.batch_size * (4 + len(spec.classes)) * int(np.prod(spec.patch_voxels))
    fit = _shared_bytes() // (BATCHES_AHEAD * batch_bytes * spec.devices)
    return min(fit, max(1, min(MOST_WORKERS, (cores() - 1) // spec.devices)) if on_gpu else 1)


def _shared_bytes() -> int:
    """Of memory that processes share, what batches may take: half of what containers often have little of."""
    return min(BYTES_AHEAD, shutil.disk_usage(SHARED_MEMORY).free // 2) if SHARED_MEMORY.exists() else BYTES_AHEAD
