"""Running every network of a plan over the crops it is needed for, once; what is kept from before stays."""

import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ensemble.core import Box, Grid, zyx
from ensemble.engine import Engine, Here, Task, Work, done
from ensemble.plan import (
    CropPlan,
    Job,
    LabelSource,
    NetworkUse,
    PredictionSource,
    Prepared,
    Request,
    UnlikeEM,
    longest_slabs_first,
    refuse_unlike,
    slabs_for,
    sources_in,
    unlike_range,
)
from ensemble.predict.device import find_devices, kind_for
from ensemble.predict.job_work import JobPlace, JobWork, PassCount
from ensemble.predict.network_uses import settled_uses
from ensemble.predict.prediction_store import (
    StoredPrediction,
    claim,
    complete_prediction,
    job_key,
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
        engine: Engine | None = None,
    ) -> None:
        self._request, self._prepared, self._registry, self._progress = request, prepared, registry, progress
        self._plan = prepared.plan
        self.uses, self.given = uses, given
        self.keys = _keys(request, prepared, uses)
        self.kept, self.passes = len(prepared.plan.jobs), 0
        self._engine, self._loading_s = engine, 0.0
        self._under_way: dict[str, JobWork] = {}

    @classmethod
    def of(
        cls,
        request: Request,
        prepared: Prepared,
        registry: Registry,
        progress: Progress,
        engine: Engine | None = None,
    ) -> "Predictor":
        """Opens what other tools wrote, before hours are spent; networks run on the engine, or in this process.

        Raises EnsembleError for what is not there.
        """
        uses = settled_uses(request, prepared, registry, progress, engine)
        given = {crop.target.crop: _given(request, prepared, crop) for crop in prepared.plan.crops}
        return cls(request, prepared, registry, progress, uses, given, engine)

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

        with ExitStack() as stack:
            engine = self._engine or stack.enter_context(self._here())
            engine.hear = self.hear
            waiting = sorted(waiting, key=lambda job: job.source in may_lack)
            left = self._compute(engine, waiting, may_begin, count, may_lack)
            if awaited := [f"{job.source} on crop {job.crop}" for job in left if may_begin(job)]:
                self._progress.say(
                    f"another process is predicting {', '.join(awaited)} for the same store; waiting for it"
                )
            while any(map(may_begin, left)):
                time.sleep(_LOOK_AGAIN_S)
                left = self._compute(engine, left, may_begin, count, may_lack)
        if self._loading_s:
            self._prepared.pacing.paces.keep(self._prepared.pacing.start, self._loading_s)
        return tuple(dict.fromkeys(job.source for job in left))

    def _here(self) -> Here:
        from ensemble.predict.part_run import sit_down

        return Here(devices=find_devices(self._request.device), sit_down=sit_down)

    def hear(self, task: Task, news: Any) -> None:
        """A part of a job tells how far it is."""
        work = self._under_way.get(task.arguments[0].place.key) if task.on_gpu and news is not None else None
        if work is not None:
            work.hear(task, news)

    def _compute(
        self,
        engine: Engine,
        jobs: Sequence[Job],
        may_begin: Callable[[Job], bool],
        count: PassCount,
        may_lack: Collection[str],
    ) -> list[Job]:
        """Compute these jobs; those that may not begin, or that another process is at work on, are returned."""
        left: list[Job] = []
        devices = self._request.budget.devices
        slabs, most = slabs_for(jobs, devices), 1 if devices == 1 else _JOBS_A_DEVICE * devices
        # of one process all networks round as TF32 does, or none
        for _, alike in groupby(jobs, lambda job: (job.source in may_lack, self.uses[job.source].arithmetic == "tf32")):
            works = (
                self._job(job, slabs[job.identity], may_begin, count, left)
                for job in longest_slabs_first(list(alike), slabs)
            )
            for _ in done(engine, works, most):
                pass
        return left

    def _job(
        self, job: Job, slabs: int, may_begin: Callable[[Job], bool], count: PassCount, left: list[Job]
    ) -> Work[None]:
        """A job, while no other process is at work on it."""
        if not may_begin(job):
            left.append(job)
            return
        with claim(self._request.predictions, self.keys[job.identity]) as free:
            if self.stored(job) is not None:
                count.advance(job.forward_passes)
            elif free:
                yield from self._claimed(job, slabs, count)
            else:
                left.append(job)

    def _claimed(self, job: Job, slabs: int, count: PassCount) -> Work[None]:
        """Compute a job, and keep what a pass took with all around it; a few alone say little."""
        work = JobWork(job, self._place(job), self._request.budget, slabs, count)
        self._under_way[self.keys[job.identity]] = work
        yield from work.work()
        del self._under_way[self.keys[job.identity]]
        self.passes += work.passes
        self._loading_s += work.loading_s
        if work.passes >= ENOUGH_PASSES:
            self._prepared.pacing.paces.keep(self._prepared.pacing.network(job), work.computing_s / work.passes)

    def _place(self, job: Job) -> JobPlace:
        request = self._request
        return JobPlace(
            tissue_of(self._prepared.em, job),
            request.predictions.resolve(),
            self.keys[job.identity],
            self._registry.weights(self._prepared.models[job.source]),
            self.uses[job.source],
            kind_for(request),
            self._prepared.threads,
            None if request.workers else request.work.resolve() / "scratch",
        )


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
    device = kind_for(request)
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
    for source, named in prepared.plan.recipe.sources.items():
        # a worker has a working directory of its own
        spec = _anywhere(named) if request.workers and isinstance(named, PredictionSource | LabelSource) else named
        names = [name for name, route in crop.routes.items() if source in sources_in(route.source)]
        if isinstance(spec, PredictionSource):
            opened = open_predictions(spec, request.data_root, crop.target, names)
            fields.update({(name, source): field for name, field in opened.items()})
        elif isinstance(spec, LabelSource):
            for name in names:
                fields[name, source] = open_labels(spec, request.data_root, crop.target, name)
    return fields


def _anywhere(source: PredictionSource | LabelSource) -> PredictionSource | LabelSource:
    """The source with a template that means the same in whatever working directory."""
    template = source.template
    if "://" in template or template.startswith("{root}"):
        return source
    return replace(source, template=os.path.abspath(template))
