"""Running every network of a plan over the crops it is needed for, once; what is kept from before stays."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ensemble.core import Box, Grid, zyx
from ensemble.plan import (
    CropPlan,
    Job,
    LabelSource,
    NetworkUse,
    PredictionSource,
    Prepared,
    Request,
    UnlikeEM,
    refuse_unlike,
    slabs_for,
    sources_in,
    unlike_range,
)
from ensemble.predict.device import device_kind, find_devices
from ensemble.predict.network_uses import settled_uses
from ensemble.predict.prediction_store import (
    StoredPrediction,
    claim,
    complete_prediction,
    job_key,
    open_prediction,
)
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities
from ensemble.predict.scales import refuse_other_scales
from ensemble.predict.stored_sources import open_labels, open_predictions
from ensemble.predict.tissues import tissue_of
from ensemble.support import EnsembleError, Progress, VolumeError, counted
from registry import Registry

ENOUGH_PASSES = 8
LOOKED_AT_VOXELS = 64

if TYPE_CHECKING:
    import torch

    from ensemble.predict.crew import Crew
    from ensemble.predict.job_run import JobRun, PassCount
    from ensemble.predict.runner import Runner

Fields = dict[tuple[str, str], StoredProbabilities | StoredLabels]
"""What a crop is made of: by class and source."""

_JOBS_A_DEVICE = 2
"""Jobs begun for each of several devices: where the parts of one run out, those of the next are there."""

_LOOK_AGAIN_S = 0.5
"""How long to wait before looking again whether another process has finished."""


class Predictor:
    """A plan's jobs, the probabilities they leave where builds share them, and those that others wrote.

    Made by ``Predictor.of``. ``uses``: source -> how its network runs. ``keys``: source and crop of a job -> what
    decides its probabilities. ``given``: crop -> what other tools wrote. ``kept``: how many jobs were complete before
    ``run``; ``passes``: how often it ran a network over a patch.
    """

    def __init__(
        self,
        request: Request,
        prepared: Prepared,
        registry: Registry,
        progress: Progress,
        uses: Mapping[str, NetworkUse],
        given: Mapping[str, Fields],
    ) -> None:
        self._request, self._prepared, self._registry, self._progress = request, prepared, registry, progress
        self._plan = prepared.plan
        self.uses, self.given = uses, given
        self.keys = _keys(request, prepared, uses)
        self.kept, self.passes = len(prepared.plan.jobs), 0
        self._loading_s = 0.0

    @classmethod
    def of(cls, request: Request, prepared: Prepared, registry: Registry, progress: Progress) -> "Predictor":
        """Opens what other tools wrote, before hours are spent. Raises EnsembleError for what is not there."""
        uses = settled_uses(request, prepared, registry, progress)
        given = {crop.target.crop: _given(request, prepared, crop) for crop in prepared.plan.crops}
        return cls(request, prepared, registry, progress, uses, given)

    def stored(self, job: Job) -> StoredPrediction | None:
        """A job's probabilities; None where they are not there in whole."""
        return complete_prediction(self._request.predictions, self.keys[job.identity], job)

    @property
    def open_jobs(self) -> list[Job]:
        """The jobs whose probabilities are not there in whole."""
        return [job for job in self._plan.jobs if self.stored(job) is None]

    def fields(self, crop: CropPlan) -> Fields:
        """A crop's probabilities. Raises EnsembleError where they are not there in whole."""
        fields = dict(self.given[crop.target.crop])
        for job in crop.jobs:
            stored = self.stored(job)
            if stored is None:
                raise EnsembleError(
                    f"{self._request.out}: what {job.source} predicted of crop {job.crop} is not there any more;"
                    " build again"
                )
            fields.update({(name, job.source): stored.of(name) for name in job.classes})
        return fields

    def refuse_other_scales(self, highest: Iterable[tuple[str, Mapping[str, int]]]) -> None:
        """Raises VolumeError for a source whose whole numbers are not shares of their type's highest.

        ``highest``: crops with the highest values found in them, by "class source".
        """
        seen: dict[str, list[tuple[StoredProbabilities, int]]] = {}
        for crop, of_crop in highest:
            for key, value in of_crop.items():
                name, source = key.split(" ", 1)
                field = self.given[crop].get((name, source))
                if isinstance(field, StoredProbabilities):
                    seen.setdefault(source, []).append((field, value))
        for source, values in seen.items():
            refuse_other_scales(source, values)

    def unlike_ranges(self) -> tuple[UnlikeEM, ...]:
        """What of the jobs left runs on EM of another range than the training's, by the middle of each crop."""
        seen: dict[tuple[str, str], tuple[Job, list[NDArray[Any]]]] = {}
        for job in self.open_jobs:
            grid = job.level_grid
            around = grid.box_over(job.stored)
            middle = _middle(grid.sub(around)).shifted(around.start)
            grey = tissue_of(self._prepared.em, job).read(middle)
            seen.setdefault((job.source, job.dataset), (job, []))[1].extend((grey.min(), grey.max()))
        found = (unlike_range(self._plan, job, (float(min(v)), float(max(v)))) for job, v in seen.values())
        return tuple(entry for entry in found if entry is not None)

    def look_ahead(self) -> list[str]:
        """What the middle of each crop says against the scale of EM and stored sources, before networks run for hours.

        Raises VolumeError for values that no build takes, RecipeError for EM that a model did not learn from.
        """
        unlike = self.unlike_ranges()
        refuse_unlike(unlike)
        seen: dict[str, list[tuple[StoredProbabilities, int]]] = {}
        for crop in self._plan.crops:
            middle = crop.target.grid.sub(_middle(crop.target.grid))
            for (_, source), field in self.given[crop.target.crop].items():
                part = field.over(middle)
                part.bounds(middle)
                highest = part.highest()
                if isinstance(part, StoredProbabilities) and highest is not None:
                    seen.setdefault(source, []).append((part, highest))
        doubts = (_doubt(source, values) for source, values in seen.items())
        return [*(entry.warning for entry in unlike), *(line for line in doubts if line is not None)]

    def run(self, *, until: float = math.inf, may_lack: Collection[str] = ()) -> tuple[str, ...]:
        """Compute what is not there; what another process computes is waited for.

        Sources of ``may_lack`` come last, and none of their jobs begins after ``until`` (of time.monotonic): those that
        lack one are returned.
        """
        from ensemble.predict.crew import Crew
        from ensemble.predict.job_run import PassCount

        jobs = self._plan.jobs
        waiting = self.open_jobs
        self.kept = len(jobs) - len(waiting)
        if jobs:
            self._progress.say(found_in_words(self.kept, len(jobs)))
        self._progress.stage("predict", sum(job.forward_passes for job in jobs))
        count = PassCount(self._progress, sum(job.forward_passes for job in jobs if job not in waiting))
        if not waiting:
            count.advance(0)
            return ()

        def may_begin(job: Job) -> bool:
            return job.source not in may_lack or time.monotonic() <= until

        with Crew(find_devices(self._request.device), self._prepared.threads, self._load) as crew:
            left = self._compute(crew, sorted(waiting, key=lambda job: job.source in may_lack), may_begin, count)
            if awaited := [f"{job.source} on crop {job.crop}" for job in left if may_begin(job)]:
                self._progress.say(
                    f"another process is predicting {', '.join(awaited)} for the same store; waiting for it"
                )
            while any(map(may_begin, left)):
                time.sleep(_LOOK_AGAIN_S)
                left = self._compute(crew, left, may_begin, count)
        if self._loading_s:
            self._prepared.pacing.paces.keep(self._prepared.pacing.start, self._loading_s)
        return tuple(dict.fromkeys(job.source for job in left))

    def _compute(
        self, crew: "Crew", jobs: Sequence[Job], may_begin: Callable[[Job], bool], count: "PassCount"
    ) -> list[Job]:
        """Compute these jobs; those that may not begin, or that another process is at work on, are returned."""
        left, devices = [], self._request.budget.devices
        slabs, at_once = slabs_for(jobs, devices), 1 if devices == 1 else _JOBS_A_DEVICE * devices
        with ExitStack() as everything:
            under_way: deque[JobRun] = deque()
            for job in jobs:
                while len(under_way) >= at_once:
                    self._end(under_way.popleft())
                claims = everything.enter_context(ExitStack())
                if not may_begin(job):
                    left.append(job)
                    continue
                while under_way and self._rounds(under_way[0].job) != self._rounds(job):
                    self._end(under_way.popleft())
                free = claims.enter_context(claim(self._request.predictions, self.keys[job.identity]))
                if self.stored(job) is not None:
                    count.advance(job.forward_passes)
                elif free:
                    under_way.append(self._begun(crew, job, slabs[job.identity], claims, count))
                    continue
                else:
                    left.append(job)
                claims.close()
            while under_way:
                self._end(under_way.popleft())
        return left

    def _begun(self, crew: "Crew", job: Job, slabs: int, claims: ExitStack, count: "PassCount") -> "JobRun":
        from ensemble.predict.job_run import JobRun

        request = self._request
        stored = open_prediction(request.predictions, self.keys[job.identity], job)
        tissue = tissue_of(self._prepared.em, job)
        run = JobRun(job, tissue, stored, request.budget, request.work / "scratch")
        run.begin(crew, slabs, claims, count)
        return run

    def _rounds(self, job: Job) -> bool:
        """Whether a job's network rounds as TF32 does, which a process can do on all devices or on none."""
        return self.uses[job.source].arithmetic == "tf32"

    def _end(self, run: "JobRun") -> None:
        """Wait for a job, and keep what a pass took with all around it; a few alone say little."""
        run.end()
        self.passes += run.passes
        if run.passes >= ENOUGH_PASSES:
            self._prepared.pacing.paces.keep(self._prepared.pacing.network(run.job), run.computing_s / run.passes)

    def _load(self, job: Job, device: "torch.device") -> "Runner":
        began = time.monotonic()
        use = self.uses[job.source]
        runner = load_runner(self._prepared, self._registry, job, device, use)
        if use.is_compiled and (fault := runner.fault()) is not None:
            self._progress.say(
                f"{job.source}: its network cannot be compiled here ({fault}); "
                "it runs as it is, which may change last bits"
            )
            runner = load_runner(self._prepared, self._registry, job, device, use.plain)
        self._loading_s += time.monotonic() - began
        return runner


def load_runner(prepared: Prepared, registry: Registry, job: Job, device: "torch.device", use: NetworkUse) -> "Runner":
    """The network of a job, loaded on a device."""
    from ensemble.predict.runner import Runner
    from registry import load_network

    model = prepared.models[job.source]
    network = load_network(model.card, registry.weights(model)).to(device)
    return Runner.of(network, job, device, use)


def _middle(grid: Grid) -> Box:
    sides = [min(LOOKED_AT_VOXELS, n) for n in grid.shape]
    return Box.at(zyx((n - side) // 2 for n, side in zip(grid.shape, sides, strict=True)), zyx(sides))


def _doubt(source: str, seen: Sequence[tuple[StoredProbabilities, int]]) -> str | None:
    """Why a build may end after its networks have run; the middle of its crops may be no measure of a source."""
    try:
        refuse_other_scales(source, seen)
    except VolumeError as error:
        return f"in the middle of the crops, {error}"
    return None


def _keys(request: Request, prepared: Prepared, uses: Mapping[str, NetworkUse]) -> dict[tuple[str, str], str]:
    device = device_kind(request.device)
    return {
        job.identity: job_key(job, tissue_of(prepared.em, job), device, uses[job.source], prepared.threads)
        for job in prepared.plan.jobs
    }


def found_in_words(found: int, jobs: int) -> str:
    """How many of the predictions are there, and how many must be computed."""
    return f"{found:,} of {counted(jobs, 'prediction')} found" + (
        f", {jobs - found} to compute" if found < jobs else ""
    )


def _given(request: Request, prepared: Prepared, crop: CropPlan) -> Fields:
    """What other tools wrote of a crop."""
    fields: Fields = {}
    for source, spec in prepared.plan.recipe.sources.items():
        names = [name for name, route in crop.routes.items() if source in sources_in(route.source)]
        if isinstance(spec, PredictionSource):
            opened = open_predictions(spec, request.data_root, crop.target, names)
            fields.update({(name, source): field for name, field in opened.items()})
        elif isinstance(spec, LabelSource):
            for name in names:
                fields[name, source] = open_labels(spec.template, request.data_root, crop.target, name)
    return fields
