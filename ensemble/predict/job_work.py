"""A job as work: its parts as tasks, and what of it is written."""

import threading
from dataclasses import dataclass
from pathlib import Path

from ensemble.engine import Task, Work, gather
from ensemble.plan import Budget, Job, NetworkUse, Part, parts_of
from ensemble.predict.prediction_store import StoredPrediction, open_prediction
from ensemble.storage import Tissue
from ensemble.support import Progress, digest


class PassCount:
    """How many passes were run and how far all jobs are, told by any thread."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.progress, self.done = progress, done
        self._counting = threading.Lock()

    def advance(self, passes: int, what: str = "") -> None:
        with self._counting:
            self.done += passes
            self.progress.at(self.done, what)


@dataclass(frozen=True)
class JobPlace:
    """Where a job's EM is read, its probabilities are kept under a key, and its network runs.

    ``device`` is the kind of device, and ``threads`` work on one operation of the network: both decide last bits.
    ``scratch`` is where sums may lie on disk; None: in a temporary folder of the worker's machine.
    """

    tissue: Tissue
    folder: Path
    key: str
    weights: Path
    use: NetworkUse
    device: str
    threads: int
    scratch: Path | None


@dataclass(frozen=True)
class PartTask:
    """What computing a part of ``job`` takes; all of it can be sent to another process.

    ``sums_on_device``, else in memory, or on disk where it ``spills``.
    """

    job: Job
    part: Part
    place: JobPlace
    sums_on_device: bool
    spills: bool


@dataclass(frozen=True)
class PartDone:
    """What computing a part took, and what a person should know of it. ``passes`` over patches were run."""

    passes: int
    computing_s: float
    loading_s: float
    said: tuple[str, ...]


class JobWork:
    """A job in parts, done by whatever engine. ``passes`` were run, in ``computing_s``; loading took ``loading_s``.

    Patches between two parts are computed by both; progress counts only what all parts need.
    """

    def __init__(self, job: Job, place: JobPlace, budget: Budget, slabs: int, count: PassCount) -> None:
        self.job = job
        self._place, self._budget, self._slabs, self._count = place, budget, slabs, count
        self.passes, self.computing_s, self.loading_s = 0, 0.0, 0.0
        self._heard: dict[str, int] = {}
        self._told, self._needed = 0, 1
        self._counting = threading.Lock()

    def work(self) -> Work[None]:
        """All parts that are not written for good."""
        place = self._place
        stored = open_prediction(place.folder, place.key, self.job)
        parts = parts_of(self.job, self._budget.cut(self.job) or (1, 1), self._slabs)
        self._needed = max(1, sum(part.job.forward_passes for part in parts))
        left = [part for part in parts if stored.done_planes(part.box) < part.box.shape[0]]
        yield from gather(map(self._task, left), lambda task, done: self._note(stored, task, done))
        self._tell(self.job.forward_passes)

    def hear(self, task: Task, passes: int) -> None:
        """A part tells how many passes it has run."""
        with self._counting:
            self._heard[task.key] = passes
            of_whole = self.job.forward_passes * sum(self._heard.values()) // self._needed
        self._tell(of_whole)

    def _task(self, part: Part) -> Task:
        place, job, budget = self._place, self.job, self._budget
        task = PartTask(job, part, place, budget.cut(job) is not None, budget.spills(job))
        key = digest({"prediction": place.key, "box": part.box})
        return Task("ensemble.predict.part_run:predict_part", (task,), key, on_gpu=True, what=f"predict-{job.source}")

    def _note(self, stored: StoredPrediction, task: Task, done: PartDone) -> None:
        (of_task,) = task.arguments
        stored.mark(of_task.part.box)
        stored.forget_section(of_task.part.box)
        self.passes += done.passes
        self.computing_s += done.computing_s
        self.loading_s += done.loading_s
        for line in done.said:
            self._count.progress.say(line)

    def _tell(self, passes: int) -> None:
        """Progress hears how many passes of the job are done in all."""
        with self._counting:
            more, self._told = max(0, passes - self._told), max(passes, self._told)
        self._count.advance(more, f"{self.job.source} on crop {self.job.crop}")
