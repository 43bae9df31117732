"""How long a plan takes on this machine, from what was timed here before."""

import platform
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
        assembling = "; assembling is timed by the first build"
        if self.assembling_s is not None:
            assembling = f", about {duration(self.assembling_s)} of assembling and checking"
        return f"on this machine {predicting}{assembling}"


def hours_of(plan: Plan, paces: Paces, device: str, precision: Precision, *, threads: int, workers: int) -> Hours:
    """``device`` as the request names it; ``threads`` of a network's operations, ``workers`` of assembling."""
    place = device_in_words(device, threads)
    passes = [(job, paces.seconds(network_pace(job, place, precision))) for job in plan.jobs]
    untimed = list(dict.fromkeys(job.source for job, seconds in passes if seconds is None))
    predicting_s = None if untimed else sum(job.forward_passes * (seconds or 0) for job, seconds in passes)
    unit_s = paces.seconds(assembling_pace(plan, workers))
    return Hours(place, predicting_s, None if unit_s is None else unit_s * units(plan), untimed)


def network_pace(job: Job, place: str, precision: Precision) -> str:
    """What a pass of a job's network over a patch is timed as."""
    return f"a patch of {job.model.sha256[:16]} with {len(job.classes)} classes on {place}, precision {precision}"


def assembling_pace(plan: Plan, workers: int) -> str:
    """What assembling, packing and checking VOXELS_PER_UNIT of the plan's arrays is timed as."""
    return f"assembling, consistency {plan.recipe.consistency}, {workers} workers"


def units(plan: Plan) -> float:
    """Voxels of claimed arrays, in VOXELS_PER_UNIT."""
    return sum(crop.target.grid.size * len(crop.claimed) for crop in plan.crops) / VOXELS_PER_UNIT


def device_in_words(device: str, threads: int) -> str:
    """Where networks run, told without loading torch."""
    kind = device.partition(":")[0]
    if kind == "auto":
        kind = ("mps" if platform.system() == "Darwin" else "cuda") if has_gpu() else "cpu"
    return f"{kind}, {threads} threads" if kind == "cpu" else kind
