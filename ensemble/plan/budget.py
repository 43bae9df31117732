"""What each step of a build takes of memory, and how many of a kind may run at once within what is lent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ensemble.core import CHUNK, Grid
from ensemble.methods import Stage
from ensemble.plan.job import Job, patches_per_pass
from ensemble.plan.parts import Cut, cut_that_fits
from ensemble.plan.plan import CropPlan, Plan
from ensemble.support import EnsembleError

BAND_BYTES = 256 << 20
"""About how much of the sources one worker holds while it decides; never less than one chunk's."""

PASS_SHARE = 0.4
"""Of the memory of a GPU, what a pass may take; the rest is for sums."""

_LIBRARIES_BYTES = 700 << 20
_WORKER_BYTES = 300 << 20
"""What a process that does tasks has of its own."""

_CONVOLUTIONS = 1.55
"""What a forward pass takes beside its tensors: the CPU's convolutions lay theirs out anew."""

_TILE_BYTES = 96 << 20
_SLAB_BYTES_PER_VOXEL = 12
_SPLIT_BYTES_PER_VOXEL = 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Budget:
    """Memory and threads that are lent; ``on_cpu``: networks compute in that memory too.

    ``gpu_bytes`` are those of each of ``devices`` GPUs where partial sums may lie.
    """

    memory_bytes: int = 4 << 30
    workers: int = 1
    on_cpu: bool = True
    gpu_bytes: int = 0
    devices: int = 1

    # -- predicting

    def network_bytes(self, job: Job) -> int:
        """The libraries, the weights and one pass of a network, in the memory that is lent."""
        if not self.on_cpu:
            return _LIBRARIES_BYTES + 2 * self.devices * job.model.weights_bytes
        return _LIBRARIES_BYTES + self.devices * (job.model.weights_bytes + _pass_bytes(job, "cpu"))

    def cut(self, job: Job) -> Cut | None:
        """How a job is cut along y and x for its sums to fit a GPU; None: they lie in memory that is lent."""
        if self.on_cpu:
            return None
        a_pass = job.model.weights_bytes + _pass_bytes(job, "cuda")
        room = min(self.gpu_bytes - a_pass, int((1 - PASS_SHARE) * self.gpu_bytes))
        return cut_that_fits(job, room) if room > 0 else None

    def spills(self, job: Job) -> bool:
        """Whether partial sums lie on disk."""
        return self.cut(job) is None and self._with_sums(job, job.sum_bytes) > self.memory_bytes

    def sums_in_words(self, job: Job) -> str:
        """Where partial sums lie."""
        cut = self.cut(job)
        if cut is not None:
            return "on the GPU" if cut == (1, 1) else f"on the GPU, in {cut[0]} × {cut[1]} parts along y and x"
        return "on disk" if self.spills(job) else "in memory"

    def predicting_bytes(self, job: Job) -> int:
        """About the peak of a job, or of one on each device."""
        if self.cut(job) is not None:
            return self._with_sums(job, job.leaving_bytes + job.row_bytes)
        return self._with_sums(job, job.spilled_bytes if self.spills(job) else job.sum_bytes)

    def _with_sums(self, job: Job, sums_bytes: int) -> int:
        return self.network_bytes(job) + self.devices * (job.read_bytes + sums_bytes)

    # -- assembling

    @property
    def deciding_workers(self) -> int:
        """Bands decided at once."""
        return self._at_once(self.deciding_bytes)

    @property
    def tasks_bytes(self) -> int:
        """What all tasks at work may take together."""
        return self.memory_bytes - _LIBRARIES_BYTES

    @property
    def deciding_bytes(self) -> int:
        """What deciding a band takes, the process that does it included."""
        return BAND_BYTES + _TILE_BYTES + _WORKER_BYTES

    def objects_bytes(self, grid: Grid, cut_bytes: int = 0) -> int:
        """About what finding a class's objects takes, the process that does it included; so many bytes to cut them."""
        slab = _slab_bytes(grid)
        return _WORKER_BYTES + max(self.slab_workers(grid) * slab, 2 * slab + cut_bytes if cut_bytes else 0)

    def slab_workers(self, grid: Grid) -> int:
        """Slabs labelled at once."""
        return self._at_once(_slab_bytes(grid))

    @cached_property
    def split_bytes(self) -> int:
        """What cutting one component may take; a larger one is cut on larger voxels."""
        return self.memory_bytes * 5 // 8

    def may_coarsen(self, crop: CropPlan) -> bool:
        """Whether some component might be too large to be cut as it is."""
        return _cuts(crop) and _SPLIT_BYTES_PER_VOXEL * crop.target.grid.size > self.split_bytes

    def assembling_bytes(self, crop: CropPlan) -> int:
        """At most about this, for one crop alone."""
        if not crop.claimed:
            return _LIBRARIES_BYTES
        deciding = self.deciding_workers * self.deciding_bytes
        return _LIBRARIES_BYTES + max(deciding, self._objects_bytes(crop) if _labels(crop) else 0)

    def _objects_bytes(self, crop: CropPlan) -> int:
        """At most about what finding a class's objects takes: it depends on how large they are."""
        grid = crop.target.grid
        whole = _SPLIT_BYTES_PER_VOXEL * grid.size if _cuts(crop) else 0
        return self.objects_bytes(grid, min(self.split_bytes, whole))

    def _at_once(self, each_bytes: int) -> int:
        return max(1, min(self.workers, self.tasks_bytes // each_bytes))

    # -- the whole

    def peak_bytes(self, plan: Plan) -> int:
        """About the most that any step takes; tasks of several crops are at work together as far as memory goes."""
        jobs = [self.predicting_bytes(job) for job in plan.jobs]
        crops = [self.assembling_bytes(crop) for crop in plan.crops]
        together = sum(crops) - (len(crops) - 1) * _LIBRARIES_BYTES
        return max([*jobs, *crops, min(together, self.memory_bytes)])

    def check(self, plan: Plan) -> None:
        """Raise EnsembleError for what cannot be done within the memory that is lent."""
        jobs = {f"{job.source} on crop {job.crop}": self.predicting_bytes(job) for job in plan.jobs}
        self._lend(jobs | self._to_assemble(*plan.crops))

    def check_assembling(self, crop: CropPlan) -> None:
        """The same for one crop whose probabilities are there."""
        self._lend(self._to_assemble(crop))

    def _to_assemble(self, *crops: CropPlan) -> dict[str, int]:
        alone = replace(self, workers=1)
        return {f"assembling crop {crop.target.crop}": _least(alone, crop) for crop in crops}

    def _lend(self, needs: Mapping[str, int]) -> None:
        what, most = max(needs.items(), key=lambda item: item[1])
        if most > self.memory_bytes:
            raise EnsembleError(
                f"--memory {self.memory_bytes / _GIB:.2g}: {what} needs about {most / _GIB:.1f} GiB even with partial "
                "sums on disk and one worker; give that much, or leave it out"
            )


def _pass_bytes(job: Job, device_kind: str) -> int:
    """One pass of a network, and its answers as probabilities."""
    batch = patches_per_pass(job.patch, device_kind)
    answers = 4 * len(job.classes) * math.prod(job.patch)
    return int(batch * (_CONVOLUTIONS * job.model.patch_bytes + 2 * answers))


def _least(budget: Budget, crop: CropPlan) -> int:
    """What assembling takes where everything too large is cut on larger voxels."""
    if not crop.claimed:
        return _LIBRARIES_BYTES
    slab = _slab_bytes(crop.target.grid) if _labels(crop) else 0
    return _LIBRARIES_BYTES + _WORKER_BYTES + max(BAND_BYTES + _TILE_BYTES, slab)


def _slab_bytes(grid: Grid) -> int:
    """Labelling one slab: codewords, mask and labels of its planes and the one before."""
    return _SLAB_BYTES_PER_VOXEL * (min(CHUNK[0], grid.shape[0]) + 1) * math.prod(grid.shape[1:])


def _labels(crop: CropPlan) -> bool:
    """Whether any class has its objects looked for."""
    return any(
        step.labels or step.method.stage is not Stage.LABEL
        for name in crop.claimed
        for step in crop.routes[name].of_stage(Stage.LABEL, Stage.FILTER, Stage.FILL)
    )


def _cuts(crop: CropPlan) -> bool:
    """Whether any class has its components cut."""
    return any(not step.indivisible for name in crop.claimed for step in crop.routes[name].of_stage(Stage.LABEL))
