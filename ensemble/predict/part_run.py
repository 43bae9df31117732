"""A part of a job computed where a network can run: a task, in this process or in a worker's."""

import gc
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ensemble.engine import tell
from ensemble.plan import FORWARD_PASSES, NetworkUse
from ensemble.predict.device import find_devices, fix_threads
from ensemble.predict.job_work import PartDone, PartTask
from ensemble.predict.prediction_store import Section, StoredPrediction, section_of_prediction
from ensemble.predict.runner import Runner
from ensemble.predict.sliding_window import CPU, Network, Output, frame_reader, predict_job
from ensemble.support import EnsembleError
from registry import load_network


@dataclass
class _Seat:
    """A device, and the network that it ran last. ``most_patches``: of a source that fit, where fewer did."""

    device: torch.device
    source: tuple[str, str, NetworkUse] | None = None
    runner: Runner | None = None
    most_patches: dict[str, int] = field(default_factory=dict)


_own = threading.local()
_loading = threading.Lock()


def sit_down(device: torch.device) -> None:
    """Let this thread run its networks on a device."""
    _own.seat = _Seat(device)


def predict_part(task: PartTask) -> PartDone:
    """Compute a part; what of it is there already, written by a worker that ended, stays.

    Raises EnsembleError where there is no device of the kind, or no memory for a single patch.
    """
    if not hasattr(_own, "seat"):
        sit_down(find_devices(task.place.device)[0])
    seat: _Seat = _own.seat
    if seat.device.type != task.place.device:
        raise EnsembleError(
            f"{task.job.source} is to run on {task.place.device}, but a worker has {seat.device.type}; start workers "
            "of one kind, or give those that run networks the resource GPU"
        )
    fix_threads(task.place.threads)
    return _PartRun(task, seat).run()


class _PartRun:
    def __init__(self, task: PartTask, seat: _Seat) -> None:
        self._task, self._seat = task, seat
        self._passes, self._said = 0, list[str]()

    def run(self) -> PartDone:
        began = time.monotonic()
        runner = self._runner()
        loaded = time.monotonic()
        stored = section_of_prediction(
            self._task.place.folder, self._task.place.key, self._task.job, self._task.part.box
        )
        self._compute(runner, stored)
        return PartDone(self._passes, time.monotonic() - loaded, loaded - began, tuple(self._said))

    def _runner(self) -> Runner:
        job, seat, use = self._task.job, self._seat, self._task.place.use
        source = job.source, job.model.sha256, use
        if seat.source == source and seat.runner is not None:
            return seat.runner.for_job(job)
        seat.source = seat.runner = None  # the last network makes room before the next is there
        with _loading:
            runner = self._loaded(use)
            if use.is_compiled and (fault := runner.fault()) is not None:
                self._said.append(
                    f"{job.source}: its network cannot be compiled here ({fault}); "
                    "it runs as it is, which may change last bits"
                )
                runner = self._loaded(use.plain)
        seat.source, seat.runner = source, runner
        return runner

    def _loaded(self, use: NetworkUse) -> Runner:
        job = self._task.job
        network = load_network(job.model.card, self._task.place.weights).to(self._seat.device)
        return Runner.of(network, job, self._seat.device, use)

    def _compute(self, runner: Runner, stored: StoredPrediction) -> None:
        """Where the device's memory does not do, once more with half as many patches a pass."""
        source, most_patches = self._task.job.source, self._seat.most_patches
        batch = min(runner.batch_size(), most_patches.get(source, runner.batch_size()))
        if self._fits(runner, stored, batch):
            return
        if batch > 1:
            self._said.append(
                f"{runner.device}: no memory for {batch} patches of {source} a pass; going on with {batch // 2}, which "
                "may change last bits"
            )
            most_patches[source] = batch // 2
        if batch == 1 or not self._fits(runner, stored, batch // 2):
            raise EnsembleError(
                f"{runner.device}: no memory for a patch of {source}; lend less of it to sums with --gpu-memory, or "
                "choose another --device"
            )

    def _fits(self, runner: Runner, stored: StoredPrediction, batch_size: int) -> bool:
        """Whether a part could be computed so; where not, what was held for it is free again."""
        try:
            self._predict(runner, stored, batch_size)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        if not fits:
            gc.collect()  # a future and what it raised hold each other, and with them the sums
            torch.cuda.empty_cache()
        return fits

    def _predict(self, runner: Runner, stored: StoredPrediction, batch_size: int) -> None:
        task, part = self._task, self._task.part
        written = stored.done_planes(part.box)
        passes = FORWARD_PASSES[part.job.tta]

        def advance(patches: int, planes: int) -> None:
            nonlocal written
            if planes > written:
                first = part.box.start[0]
                stored.mark(part.box.with_axis(0, first, first + planes))
                written = planes
            self._passes += patches * passes
            tell(self._passes)

        with ExitStack() as folders:
            spill_to = None
            if task.spills:
                spill_to = task.place.scratch or Path(
                    folders.enter_context(tempfile.TemporaryDirectory(prefix="ensemble-sums-"))
                )
            predict_job(
                part.job,
                Network(runner, batch_size, runner.device),
                frame_reader(part.job, task.place.tissue),
                Output(
                    Section(stored, part.box),
                    written,
                    sums_on=runner.device if task.sums_on_device else CPU,
                    spill_to=spill_to,
                ),
                advance,
            )
