"""How long a plan takes on this machine, from what was timed here before."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from ensemble.plan.job import Job, Precision
from ensemble.plan.plan import Plan
from ensemble.support import duration, has_gpu
from registry import Paces

VOXELS_PER_UNIT = 10**6


@dataclass(frozen=True)
class Hours:
    """Seconds that networks, and all that comes after them, are expected to take; None where that is not known.

    ``device`` is where the networks run; ``untimed`` are sources whose network was never timed there.
    """

    device: str
    predicting_s: float | None
    assembling_s: float | None
    untimed: list[str]

    @property
    def in_words(self) -> str:
        predicting = f"predicting (on {self.device}) was never timed for {', '.join(self.untimed)}"
        if self.predicting_s is not None:
            predicting = f"about {duration(self.predicting_s)} of predicting (on {self.device})"
        if self.predicting_s == 0:
            predicting = "nothing is left to predict"
        assembling = "; assembling is timed by the first build"
        if self.assembling_s is not None:
            assembling = f", about {duration(self.assembling_s)} of assembling and checking"
        return f"on this machine {predicting}{assembling}"


@dataclass(frozen=True)
class Pacing:
    """What was timed on this machine before, and what a plan would run with.

    ``device`` as the request names it, ``devices`` how many that are; ``threads`` of a network's operations,
    ``workers`` of assembling.
    """

    paces: Paces
    device: str
    precision: Precision
    threads: int
    workers: int
    devices: int = 1

    @property
    def place(self) -> str:
        return device_in_words(self.device, self.threads)

    @property
    def start(self) -> str:
        """What is timed as the loading of networks, and of what runs them."""
        return f"loading networks for {self.place}"

    def network(self, job: Job) -> str:
        """What a pass of a job's network over a patch is timed as, with all that is done for it."""
        classes = len(job.classes)
        return f"a patch of {job.model.sha256[:16]} with {classes} classes on {self.place}, precision {self.precision}"

    def assembling(self, plan: Plan) -> str:
        """What assembling, packing and checking VOXELS_PER_UNIT of the plan's arrays is timed as."""
        return f"assembling, consistency {plan.recipe.consistency}, {self.workers} workers"

    def hours(self, plan: Plan, jobs: Sequence[Job]) -> Hours:
        """Of a plan of which ``jobs`` are left to compute."""
        passes = [(job, self.paces.seconds(self.network(job))) for job in jobs]
        untimed = list(dict.fromkeys(job.source for job, seconds in passes if seconds is None))
        predicting_s = None
        if not untimed:
            start_s = self.paces.seconds(self.start) or 0 if jobs else 0
            passes_s = sum(job.forward_passes * (seconds or 0) for job, seconds in passes)
            predicting_s = start_s + passes_s / self.devices
        unit_s = self.paces.seconds(self.assembling(plan))
        return Hours(self.place, predicting_s, None if unit_s is None else unit_s * units(plan), untimed)


def units(plan: Plan) -> float:
    """Voxels of claimed arrays, in VOXELS_PER_UNIT."""
    return sum(crop.target.grid.size * len(crop.claimed) for crop in plan.crops) / VOXELS_PER_UNIT


def device_in_words(device: str, threads: int) -> str:
    """Where networks run, told without loading torch."""
    names = device.split(",")
    kind = names[0].partition(":")[0]
    kind = "cuda" if kind == "all" else kind
    if kind == "auto":
        kind = ("mps" if platform.system() == "Darwin" else "cuda") if has_gpu() else "cpu"
    return f"{kind}, {threads} threads" if kind == "cpu" else kind
