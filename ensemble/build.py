"""From a recipe to a checked submission: resolve, plan, predict, assemble, pack, check, record.

Everything lies under OUT: ``submission.zip``, ``lock.yaml``, ``plan.json`` and ``check.json`` are the result,
``work/`` is what a resumed build goes on from and may be removed at any time.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from ensemble import check as checking
from ensemble import describe, infer, lock, predictions, submission
from ensemble import plan as planning
from ensemble.assemble import Crop, Outcome, Probability, assemble
from ensemble.check import Report
from ensemble.em import EM
from ensemble.errors import EnsembleError
from ensemble.manifest import Target, load, select
from ensemble.plan import CropPlan, Job, Plan
from ensemble.predictions import code_digest, digest, job_key
from ensemble.progress import Progress, Quiet
from ensemble.recipe import LabelSource, PredictionSource
from ensemble.recipe import load as load_recipe
from ensemble.sources import Labels, Probabilities, open_labels, open_probabilities
from ensemble.tiling import chunk_shape
from registry.store import ModelVersion, Store

_SCRATCH = numcodecs.Blosc(cname="lz4", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)
_ASSEMBLY_CODE = (
    *("assemble", "components", "consistency", "grid", "merge", "methods", "postprocess", "resample", "sources"),
    *("submission", "taxonomy", "tiling"),
)


@dataclass(frozen=True)
class Request:
    """What a build is asked for."""

    recipe: str | Path
    out: Path
    manifest: Path | None = None
    data_root: str = "data"
    crops: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    device: str = "auto"
    precision: infer.Precision = "32"
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    absent_is_zero: bool = False
    update_lock: bool = False

    @property
    def lock(self) -> Path:
        return self.out / "lock.yaml"

    @property
    def zip(self) -> Path:
        return self.out / "submission.zip"

    @property
    def work(self) -> Path:
        return self.out / "work"


@dataclass(frozen=True)
class Prepared:
    """A plan and what it was made from."""

    plan: Plan
    models: Mapping[str, ModelVersion]
    em: EM
    moved: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A finished build; ``run_id`` is None when everything was already done."""

    report: Report
    run_id: str | None


def prepare(request: Request, store: Store) -> Prepared:
    """The plan of a build: reads the recipe, cards and metadata, touches no voxel."""
    recipe = load_recipe(request.recipe)
    targets = select(load(request.manifest), request.crops, request.classes)
    used = set().union(*(planning.sources_of(recipe, target) for target in targets))
    in_order = [name for name in recipe.sources if name in used]
    resolved = lock.resolve(recipe, in_order, store, request.lock, update=request.update_lock)
    em = EM(request.data_root, absent_is_zero=request.absent_is_zero)
    return Prepared(planning.make(recipe, targets, resolved.models, em), resolved.models, em, resolved.moved)


def build(request: Request, store: Store, progress: Progress | None = None) -> Built:
    """Build, check and record the submission that the request asks for; resumes where it left off.

    Raises an EnsembleError for whatever a person must mend; nothing half-written is left in place of a result.
    """
    progress = progress or Quiet()
    prepared = prepare(request, store)
    request.work.mkdir(parents=True, exist_ok=True)
    with _alone(request.work / "lock"):
        return _Build(request, prepared, store, progress).run()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnsembleError(
                f"{path.parent.parent}: another build is at work here; wait for it, or use another --out"
            ) from error
        yield


class _Build:
    def __init__(self, request: Request, prepared: Prepared, store: Store, progress: Progress) -> None:
        self.request, self.prepared, self.store, self.progress = request, prepared, store, progress
        self.plan, self.recipe = prepared.plan, prepared.plan.recipe
        self.device = infer.device(request.device)
        self.keys = {id(job): self._job_key(job) for job in self.plan.jobs}
        self.fields = {crop.target.crop: self._stored_fields(crop) for crop in self.plan.crops}

    def run(self) -> Built:
        request = self.request
        for line in self.prepared.moved:
            self.progress.say(line)
        locked = lock.contents(self.plan, self.prepared.models, request.manifest, request.data_root)
        crop_keys = {crop.target.crop: self._crop_key(crop) for crop in self.plan.crops}
        key = digest({"crops": crop_keys, "models": locked["models"]})
        finished = _read_json(request.work / "finished.json")
        kept = all((request.out / name).exists() for name in ("lock.yaml", "plan.json", "check.json"))
        if kept and finished == {"key": key, "zip": _stamp(request.zip)}:
            self.progress.say(f"{request.zip}: everything is done already")
            return Built(checking.Report.from_json((request.out / "check.json").read_text()), None)
        lock.write(request.lock, locked)
        self._predict()
        outcomes = self._assemble(crop_keys)
        self._pack(outcomes)
        report = self._check()
        run_id = self._record(report)
        _write_json(request.work / "finished.json", {"key": key, "zip": _stamp(request.zip)})
        return Built(report, run_id)

    # -- predicting

    def _job_key(self, job: Job) -> str:
        return job_key(job, self.prepared.em.tissue(job), self.device.type, self.request.precision)

    def _predict(self) -> None:
        jobs = [(job, self._keep(job)) for job in self.plan.jobs]
        open_jobs = [(job, kept) for job, kept in jobs if not kept.complete]
        targets = {crop.target.crop: crop.target for crop in self.plan.crops}
        self.progress.stage("predict", sum(job.forward_passes for job, _ in jobs))
        done = sum(job.forward_passes for job, kept in jobs if kept.complete)
        for source in dict.fromkeys(job.source for job, _ in open_jobs):
            runner = None
            for job, kept in open_jobs:
                if job.source != source:
                    continue
                for line in self.prepared.em.warnings(job, targets[job.crop].grid):
                    self.progress.say(line)
                runner = self._runner(job) if runner is None else runner.for_job(job)
                self._predict_one(job, kept, runner, done)
                done += job.forward_passes
        self.progress.at(done)

    def _keep(self, job: Job) -> predictions.Kept:
        return predictions.keep(self.request.work / "predictions", self.keys[id(job)], job)

    def _runner(self, job: Job) -> infer.Runner:
        from registry.weights import load_network

        model = self.prepared.models[job.source]
        network = load_network(model.card, self.store.weights(model)).to(self.device)
        return infer.Runner.of(network, job, self.device, self.request.precision)

    def _predict_one(self, job: Job, kept: predictions.Kept, run: infer.Runner, done: int) -> None:
        passes = planning.FORWARDS[job.tta]
        patches = 0

        def advance(count: int, planes: int) -> None:
            nonlocal patches
            patches += count
            if planes > kept.done_planes:
                kept.mark(planes)
            self.progress.at(done + patches * passes, f"{job.source} on crop {job.crop}")

        read = infer.frame_reader(job, self.prepared.em.tissue(job))
        infer.predict(job, run, run.batch_size(), read, kept.array, done_planes=kept.done_planes, progress=advance)

    # -- assembling

    def _stored_fields(self, crop: CropPlan) -> dict[tuple[str, str], Probabilities | Labels]:
        """What other tools wrote, opened before hours are spent."""
        fields = {}
        for name, route in crop.routes.items():
            for source in planning.sources_in(route.source):
                spec = self.recipe.sources[source]
                if isinstance(spec, PredictionSource):
                    fields[name, source] = open_probabilities(spec.template, self.request.data_root, crop.target, name)
                elif isinstance(spec, LabelSource):
                    fields[name, source] = open_labels(spec.template, self.request.data_root, crop.target, name)
        return fields

    def _crop_key(self, crop: CropPlan) -> str:
        stored = self.fields[crop.target.crop]
        return digest(
            {
                "target": crop.target,
                "routes": {name: describe.route(route) for name, route in crop.routes.items()},
                "order": list(crop.routes),
                "jobs": [(job.source, self.keys[id(job)]) for job in crop.jobs],
                "stored": {f"{name} {source}": field.identity for (name, source), field in stored.items()},
                "consistency": self.recipe.consistency == "joint",
                "code": code_digest(*_ASSEMBLY_CODE),
            }
        )

    def _assemble(self, keys: Mapping[str, str]) -> dict[str, Outcome]:
        self.progress.stage(
            "assemble", sum(crop.target.grid.size * len(crop.target.classes) for crop in self.plan.crops)
        )
        outcomes, done = {}, 0
        for crop in self.plan.crops:
            target = crop.target
            state = self.request.work / "assembled" / f"{target.crop}.json"
            known = _read_json(state)
            if known is None or known.get("key") != keys[target.crop] or not self._arrays_there(target):
                state.unlink(missing_ok=True)
                outcome = self._assemble_one(crop, done)
                known = {"key": keys[target.crop], "outcome": asdict(outcome)}
                _write_json(state, known)
            outcomes[target.crop] = known["outcome"]
            done += target.grid.size * len(target.classes)
            self.progress.at(done)
        return outcomes

    def _arrays_there(self, target: Target) -> bool:
        folder = self._store / target.group
        return all((folder / name / ".zarray").exists() for name in target.classes)

    @property
    def _store(self) -> Path:
        return self.request.work / "submission.zarr"

    def _assemble_one(self, crop: CropPlan, done: int) -> Outcome:
        fields: dict[tuple[str, str], Any] = dict(self.fields[crop.target.crop])
        for job in crop.jobs:
            kept = self._keep(job)
            fields.update({(name, job.source): kept.of(name) for name in job.classes})
        scratch = self.request.work / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)

        def temporary(name: str, dtype: np.dtype) -> zarr.Array:
            shape = crop.target.grid.shape
            return zarr.create_array(
                str(scratch / name.replace(" ", "-")),
                shape=shape,
                chunks=chunk_shape(shape),
                dtype=dtype,
                zarr_format=2,
                compressors=_SCRATCH,
                fill_value=0,
                overwrite=True,
            )

        outcome = assemble(
            Crop(
                crop,
                Probability(crop, fields),
                temporary,
                lambda name, dtype: submission.create_array(self._store, crop.target, name, dtype),
                self.request.workers,
                lambda what, share: self.progress.at(done, f"crop {crop.target.crop}: {what} {share:.0%}"),
            ),
            joint=self.recipe.consistency == "joint",
        )
        shutil.rmtree(scratch, ignore_errors=True)
        return outcome

    # -- packing, checking, recording

    def _pack(self, outcomes: Mapping[str, Any]) -> None:
        targets = [crop.target for crop in self.plan.crops]
        attributes = {
            "consistency": self.recipe.consistency,
            "unclaimed": {crop.target.group: list(crop.unclaimed) for crop in self.plan.crops if crop.unclaimed},
            "decoding": {
                f"crop{name}": outcome["decoding"] for name, outcome in outcomes.items() if outcome["decoding"]
            },
        }
        self.progress.stage("pack", 1)
        submission.write_group_files(self._store, targets, attributes)
        submission.pack(self._store, self.request.zip, targets, lambda done, total: self.progress.at(done / total))

    def _check(self) -> Report:
        self.progress.stage("check", 1)
        targets = [crop.target for crop in self.plan.crops]
        report = checking.check(self.request.zip, targets, lambda done, total: self.progress.at(done / total))
        _write(self.request.out / "check.json", report.to_json())
        return report

    def _record(self, report: Report) -> str:
        _write_json(self.request.out / "plan.json", describe.plan(self.plan))
        models = {f"model.{name}": f"{m.name} version {m.version}" for name, m in self.prepared.models.items()}
        return self.store.log_build(
            self.recipe.name,
            params={"recipe": self.recipe.name, "consistency": self.recipe.consistency, **models},
            metrics={"faults": len(report.faults), "warnings": len(report.warnings), "empty": len(report.empty)},
            tags={"out": str(self.request.out.resolve())},
            artifacts=[
                self.recipe.path,
                *(self.request.out / name for name in ("lock.yaml", "plan.json", "check.json")),
            ],
        )


def _stamp(path: Path) -> dict[str, int] | None:
    """What tells one file of a name from another without reading it."""
    if not path.exists():
        return None
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_json(path: Path) -> Any:
    """What a file of this build says; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _write_json(path: Path, data: Any) -> None:
    _write(path, json.dumps(data, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
