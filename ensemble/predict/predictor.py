"""Running every network of a plan over the crops it is needed for, once; what is kept from before stays."""

from functools import cached_property
from typing import Any

from ensemble.plan import plan as planning
from ensemble.plan.job import FORWARD_PASSES, Job
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import LabelSource, PredictionSource
from ensemble.plan.request import Prepared, Request
from ensemble.predict import prediction_store as predictions
from ensemble.predict import sliding_window as infer
from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.prediction_store import job_key
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities, open_labels, open_probabilities
from ensemble.predict.runner import Runner
from ensemble.storage.em_pyramids import EM
from ensemble.storage.tissue import Tissue
from ensemble.support.errors import EnsembleError
from ensemble.support.progress import Progress
from registry.store import Store


def tissue_of(em: EM, job: Job) -> Tissue:
    """The EM that a job reads."""
    return em.tissue(job.dataset, job.fit.level, job.tissue_box)


class Predictor:
    """A plan's jobs, the probabilities they leave under the request's ``out``, and those that others wrote.

    ``keys``: id of a job -> what decides its probabilities. ``kept``: how many jobs were complete before ``run``;
    ``passes``: how often it ran a network over a patch.
    """

    def __init__(self, request: Request, prepared: Prepared, store: Store, progress: Progress) -> None:
        self._request, self._prepared, self._store, self._progress = request, prepared, store, progress
        self._plan = prepared.plan
        self._device = find_device(request.device)
        self.keys = {id(job): self._key(job) for job in self._plan.jobs}
        self.kept, self.passes = len(self._plan.jobs), 0
        self.given = {crop.target.crop: self._given(crop) for crop in self._plan.crops}

    def _key(self, job: Job) -> str:
        ready, request = self._prepared, self._request
        return job_key(job, tissue_of(ready.em, job), self._device.type, request.precision, ready.threads)

    def _given(self, crop: CropPlan) -> dict[tuple[str, str], StoredProbabilities | StoredLabels]:
        """What other tools wrote, opened before hours are spent."""
        fields: dict[tuple[str, str], StoredProbabilities | StoredLabels] = {}
        for name, route in crop.routes.items():
            for source in planning.sources_in(route.source):
                spec = self._plan.recipe.sources[source]
                if isinstance(spec, PredictionSource):
                    fields[name, source] = open_probabilities(spec, self._request.data_root, crop.target, name)
                elif isinstance(spec, LabelSource):
                    fields[name, source] = open_labels(spec.template, self._request.data_root, crop.target, name)
        return fields

    def keep(self, job: Job) -> predictions.StoredPrediction:
        """Where a job's probabilities are, complete or begun."""
        return predictions.open_prediction(self._request.predictions, self.keys[id(job)], job)

    def fields(self, crop: CropPlan) -> dict[tuple[str, str], Any]:
        """(class, source) -> its probabilities in a crop. Raises EnsembleError where they are not there in whole."""
        fields: dict[tuple[str, str], Any] = dict(self.given[crop.target.crop])
        for job in crop.jobs:
            kept = predictions.complete_prediction(self._request.predictions, self.keys[id(job)], job)
            if kept is None:
                raise EnsembleError(
                    f"{self._request.out}: what {job.source} predicted of crop {job.crop} is not there any more;"
                    " build again"
                )
            fields.update({(name, job.source): kept.of(name) for name in job.classes})
        return fields

    def run(self) -> None:
        """Compute what is not there."""
        fix_threads(self._prepared.threads)
        jobs = [(job, self.keep(job)) for job in self._plan.jobs]
        open_jobs = [(job, kept) for job, kept in jobs if not kept.complete]
        self.kept = len(jobs) - len(open_jobs)
        self._progress.stage("predict", sum(job.forward_passes for job, _ in jobs))
        done = sum(job.forward_passes for job, kept in jobs if kept.complete)
        for source in dict.fromkeys(job.source for job, _ in open_jobs):
            runner = None
            for job, kept in open_jobs:
                if job.source != source:
                    continue
                for line in self._warnings(job):
                    self._progress.say(line)
                runner = self._runner(job) if runner is None else runner.for_job(job)
                self._one(job, kept, runner, done)
                done += job.forward_passes
        self._progress.at(done)

    @cached_property
    def _targets(self) -> dict[str, Any]:
        return {crop.target.crop: crop.target for crop in self._plan.crops}

    def _warnings(self, job: Job) -> list[str]:
        tissue = tissue_of(self._prepared.em, job)
        return [f"crop {job.crop}: {text}" for text in tissue.warnings(self._targets[job.crop].grid)]

    def _runner(self, job: Job) -> Runner:
        from registry.weights import load_network

        model = self._prepared.models[job.source]
        network = load_network(model.card, self._store.weights(model)).to(self._device)
        return Runner.of(network, job, self._device, self._request.precision)

    def _one(self, job: Job, kept: predictions.StoredPrediction, run: Runner, done: int) -> None:
        passes = FORWARD_PASSES[job.tta]
        patches, written = 0, kept.done_planes

        def advance(count: int, planes: int) -> None:
            nonlocal patches, written
            patches += count
            self.passes += count * passes
            if planes > written:
                kept.mark(planes)
                written = planes
            self._progress.at(done + patches * passes, f"{job.source} on crop {job.crop}")

        infer.predict_job(
            job,
            run,
            run.batch_size(),
            infer.frame_reader(job, tissue_of(self._prepared.em, job)),
            kept.array,
            done_planes=written,
            progress=advance,
            spill_to=self._request.work / "scratch" if self._request.budget.spills(job) else None,
            write_behind=self._device.type != "cpu",
        )
