"""Running every network of a plan over the crops it is needed for, once; what is kept from before stays."""

from collections.abc import Iterable, Mapping

from ensemble.plan import FORWARD_PASSES, CropPlan, Job, LabelSource, PredictionSource, Prepared, Request, sources_in
from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.prediction_store import StoredPrediction, complete_prediction, job_key, open_prediction
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities
from ensemble.predict.runner import Runner
from ensemble.predict.scales import refuse_other_scales
from ensemble.predict.sliding_window import Network, Output, frame_reader, predict_job
from ensemble.predict.stored_sources import open_labels, open_predictions
from ensemble.storage import EM, Tissue
from ensemble.support import EnsembleError, Progress
from registry import Registry, load_network

Fields = dict[tuple[str, str], StoredProbabilities | StoredLabels]
"""What a crop is made of: by class and source."""


def tissue_of(em: EM, job: Job) -> Tissue:
    """The EM that a job reads."""
    return em.tissue(job.dataset, job.fit.level, job.tissue_box)


class Predictor:
    """A plan's jobs, the probabilities they leave under the request's ``out``, and those that others wrote.

    Made by ``Predictor.of``. ``keys``: source and crop of a job -> what decides its probabilities. ``given``: crop
    -> what other tools wrote. ``kept``: how many jobs were complete before ``run``; ``passes``: how often it ran a
    network over a patch.
    """

    def __init__(
        self,
        request: Request,
        prepared: Prepared,
        registry: Registry,
        progress: Progress,
        keys: Mapping[tuple[str, str], str],
        given: Mapping[str, Fields],
    ) -> None:
        self._request, self._prepared, self._registry, self._progress = request, prepared, registry, progress
        self._plan = prepared.plan
        self._grids = {crop.target.crop: crop.target.grid for crop in prepared.plan.crops}
        self.keys, self.given = keys, given
        self.kept, self.passes = len(prepared.plan.jobs), 0

    @classmethod
    def of(cls, request: Request, prepared: Prepared, registry: Registry, progress: Progress) -> "Predictor":
        """Opens what other tools wrote, before hours are spent. Raises EnsembleError for what is not there."""
        device = find_device(request.device).type
        keys = {
            job.identity: job_key(job, tissue_of(prepared.em, job), device, request.precision, prepared.threads)
            for job in prepared.plan.jobs
        }
        given = {crop.target.crop: _given(request, prepared, crop) for crop in prepared.plan.crops}
        return cls(request, prepared, registry, progress, keys, given)

    def stored(self, job: Job) -> StoredPrediction:
        """Where a job's probabilities are, complete or begun."""
        return open_prediction(self._request.predictions, self.keys[job.identity], job)

    def fields(self, crop: CropPlan) -> Fields:
        """A crop's probabilities. Raises EnsembleError where they are not there in whole."""
        fields = dict(self.given[crop.target.crop])
        for job in crop.jobs:
            stored = complete_prediction(self._request.predictions, self.keys[job.identity], job)
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

    def run(self) -> None:
        """Compute what is not there."""
        fix_threads(self._prepared.threads)
        jobs = [(job, self.stored(job)) for job in self._plan.jobs]
        open_jobs = [(job, stored) for job, stored in jobs if not stored.complete]
        self.kept = len(jobs) - len(open_jobs)
        self._progress.stage("predict", sum(job.forward_passes for job, _ in jobs))
        open_passes = sum(job.forward_passes for job, _ in open_jobs)
        done = sum(job.forward_passes for job, _ in jobs) - open_passes
        for source in dict.fromkeys(job.source for job, _ in open_jobs):
            runner = None
            for job, stored in open_jobs:
                if job.source != source:
                    continue
                for line in tissue_of(self._prepared.em, job).warnings(self._grids[job.crop]):
                    self._progress.say(f"crop {job.crop}: {line}")
                runner = self._runner(job) if runner is None else runner.for_job(job)
                self._predict(job, stored, runner, done)
                done += job.forward_passes
        self._progress.at(done)

    def _runner(self, job: Job) -> Runner:
        model, device = self._prepared.models[job.source], find_device(self._request.device)
        network = load_network(model.card, self._registry.weights(model)).to(device)
        return Runner.of(network, job, device, self._request.precision)

    def _predict(self, job: Job, stored: StoredPrediction, runner: Runner, done: int) -> None:
        passes = FORWARD_PASSES[job.tta]
        patches, written = 0, stored.done_planes

        def advance(count: int, planes: int) -> None:
            nonlocal patches, written
            patches += count
            self.passes += count * passes
            if planes > written:
                stored.mark(planes)
                written = planes
            self._progress.at(done + patches * passes, f"{job.source} on crop {job.crop}")

        predict_job(
            job,
            Network(runner, runner.batch_size()),
            frame_reader(job, tissue_of(self._prepared.em, job)),
            Output(
                stored.array,
                written,
                spill_to=self._request.work / "scratch" if self._request.budget.spills(job) else None,
                write_behind=runner.device.type != "cpu",
            ),
            advance,
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
