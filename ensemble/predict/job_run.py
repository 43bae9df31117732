"""A job under way: its parts on the devices of a crew, and what of it is written."""

import gc
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from ensemble.plan import FORWARD_PASSES, Budget, Job, Part, parts_of
from ensemble.predict.crew import Crew
from ensemble.predict.prediction_store import Section, StoredPrediction
from ensemble.predict.runner import Runner
from ensemble.predict.sliding_window import CPU, Network, Output, frame_reader, predict_job
from ensemble.storage import Tissue
from ensemble.support import EnsembleError, Progress


class PassCount:
    """How many passes were run and how far all jobs are, told by any thread."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.progress, self.done = progress, done
        self._counting = threading.Lock()

    def advance(self, passes: int, what: str = "") -> None:
        with self._counting:
            self.done += passes
            self.progress.at(self.done, what)


class JobRun:
    """The parts of a job that a crew computes, with all that is held meanwhile (``claims``).

    ``passes`` were run so far, of those that all parts need: patches between two parts are computed by both.
    """

    def __init__(self, job: Job, tissue: Tissue, stored: StoredPrediction, budget: Budget, scratch: Path) -> None:
        self.job = job
        self._tissue, self._stored, self._budget, self._scratch = tissue, stored, budget, scratch
        self.passes, self.computing_s = 0, 0.0
        self._told, self._needed = 0, 0
        self._counting = threading.Lock()
        self._results: list[Future[None]] = []

    def begin(self, crew: Crew, slabs: int, claims: ExitStack, count: PassCount) -> None:
        self._claims, self._count = claims, count
        parts = parts_of(self.job, self._budget.cut(self.job) or (1, 1), slabs)
        self._needed = sum(part.job.forward_passes for part in parts)
        for part in parts:
            if self._stored.done_planes(part.box) < part.box.shape[0]:
                self._results.append(crew.submit(self.job, partial(self._compute, crew, part)))

    def end(self) -> None:
        """Wait until all is computed. Raises what a part raised."""
        for result in self._results:
            result.result()
        self._claims.close()
        self._tell(self.job.forward_passes)

    def _compute(self, crew: Crew, part: Part, runner: Runner) -> None:
        """Where the device's memory does not do, once more with half as many patches a pass."""
        began, batch = time.monotonic(), min(runner.batch_size(), crew.most_patches.get(self.job.source, sys.maxsize))
        if not self._fits(crew, part, runner, batch):
            if batch > 1:
                self._count.progress.say(
                    f"{runner.device}: no memory for {batch} patches of {self.job.source} a pass; "
                    f"going on with {batch // 2}, which may change last bits"
                )
                crew.most_patches[self.job.source] = batch // 2
            if batch == 1 or not self._fits(crew, part, runner, batch // 2):
                raise EnsembleError(
                    f"{runner.device}: no memory for a patch of {self.job.source}; lend less of it to sums with "
                    "--gpu-memory, or choose another --device"
                )
        with self._counting:
            self.computing_s += time.monotonic() - began

    def _fits(self, crew: Crew, part: Part, runner: Runner, batch_size: int) -> bool:
        """Whether a part could be computed so; where not, what was held for it is free again."""
        try:
            self._predict(crew, part, runner, batch_size)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        if not fits:
            gc.collect()  # a future and what it raised hold each other, and with them the sums
            torch.cuda.empty_cache()
        return fits

    def _predict(self, crew: Crew, part: Part, runner: Runner, batch_size: int) -> None:
        written = self._stored.done_planes(part.box)
        passes = FORWARD_PASSES[part.job.tta]

        def advance(patches: int, planes: int) -> None:
            nonlocal written
            crew.check_goes_on()
            if planes > written:
                first = part.box.start[0]
                self._stored.mark(part.box.with_axis(0, first, first + planes))
                written = planes
            with self._counting:
                self.passes += patches * passes
                of_whole = self.job.forward_passes * self.passes // max(1, self._needed)
            self._tell(of_whole)

        predict_job(
            part.job,
            Network(runner, batch_size, runner.device),
            frame_reader(part.job, self._tissue),
            Output(
                Section(self._stored, part.box),
                written,
                sums_on=runner.device if self._budget.cut(self.job) is not None else CPU,
                spill_to=self._scratch if self._budget.spills(self.job) else None,
            ),
            advance,
        )

    def _tell(self, passes: int) -> None:
        """Progress hears how many passes of the job are done in all."""
        with self._counting:
            more, self._told = max(0, passes - self._told), max(passes, self._told)
        self._count.advance(more, f"{self.job.source} on crop {self.job.crop}")
