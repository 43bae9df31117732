"""From a recipe to a checked submission: resolve, plan, predict, assemble, pack, check, record.

Everything lies under OUT: ``submission.zip``, ``lock.yaml``, ``plan.json``, ``check.json`` and ``costs.json`` are the
result, ``work/`` is what a resumed build goes on from and may be removed at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ensemble.build.workspace import Workspace
from ensemble.core.contradictions import DecodingChanges
from ensemble.core.manifest import Target
from ensemble.decode.assembling import CropAssembly, assemble_group, groups_of
from ensemble.decode.mixing import Probability
from ensemble.plan import describe, lock
from ensemble.plan import plan as planning
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import EmptySource
from ensemble.plan.request import Prepared, Request, prepare
from ensemble.predict import prediction_store as predictions
from ensemble.predict.predictor import Predictor
from ensemble.submission import checking
from ensemble.submission import writer as submission
from ensemble.submission.check_report import CheckReport
from ensemble.support.digests import code_digest, digest, library_versions
from ensemble.support.errors import RegistryError, VolumeError
from ensemble.support.files import read_json, write_json, write_text
from ensemble.support.progress import Costs, Progress, QuietProgress
from registry.store import BUILDS, Store

_RESULTS = ("plan.json", "check.json", "costs.json")


@dataclass(frozen=True)
class Built:
    """A finished build; ``run_id`` is None when everything was already done."""

    report: CheckReport
    run_id: str | None


def build(request: Request, store: Store, progress: Progress | None = None) -> Built:
    """Build, check and record the submission that the request asks for; resumes where it left off.

    Raises an EnsembleError for whatever a person must mend; nothing half-written is left in place of a result.
    """
    progress = progress or QuietProgress()
    prepared = prepare(request, store)
    request.budget.check(prepared.plan)
    request.work.mkdir(parents=True, exist_ok=True)
    with Workspace(request.work).alone(), threadpool_limits(1, "blas"):
        return _Build(request, prepared, store, progress).run()


class _Build:
    def __init__(self, request: Request, prepared: Prepared, store: Store, progress: Progress) -> None:
        self.request, self.prepared, self.store = request, prepared, store
        self.progress = progress = Costs(progress)
        self.plan, self.recipe, self.work = prepared.plan, prepared.plan.recipe, Workspace(request.work)
        self.joint = self.recipe.consistency == "joint"
        self.predicting = Predictor(request, prepared, store, progress)
        self._assembled = 0

    def run(self) -> Built:
        request = self.request
        for line in self.prepared.moved:
            self.progress.say(line)
        locked = lock.lock_contents(
            self.plan, self.prepared.models, request.manifest, request.data_root, self.prepared.threads
        )
        key = digest({"groups": list(self._groups.values()), "models": locked["models"], "recipe": self.recipe.name})
        known = read_json(self._state) or {}
        if known.get("key") != key or known.get("zip") != _stamp(request.zip) or not request.lock.exists():
            lock.write_lock(request.lock, locked)
            write_json(request.work / "request.json", request.as_plain())
            for page in request.pages:
                page.unlink(missing_ok=True)  # they were another submission's
            self._note_needed()
            self.predicting.run()
            self._pack(self._assemble())
            known = {"key": key, "zip": _stamp(request.zip)}
            write_json(self._state, known)
        checked = _checked(request.out / "check.json")
        if known.get("run_id") and checked and all((request.out / name).exists() for name in _RESULTS):
            self.progress.say(f"{request.zip}: everything is done already")
            return Built(checked, None)
        report = self._check()
        write_json(request.out / "plan.json", describe.describe_plan(self.plan, request.budget))
        self._note_costs()
        run_id = self._record(report)
        write_json(self._state, {**known, "run_id": run_id})
        return Built(report, run_id)

    @property
    def _state(self) -> Path:
        return self.work.root / "state.json"

    def _note_needed(self) -> None:
        arrays = (f"{c.target.group}/{name}" for c in self.plan.crops for name in c.target.classes)
        self.work.need(self.predicting.keys.values(), self._groups.values(), arrays)

    # -- assembling

    @cached_property
    def _groups(self) -> dict[tuple[str, tuple[str, ...]], str]:
        """Crop and classes that are decided together -> what decides their arrays."""
        return {
            (crop.target.crop, group): self._group_key(crop, group)
            for crop in self.plan.crops
            for group in groups_of(crop, joint=self.joint)
        }

    def _group_key(self, crop: CropPlan, group: Sequence[str]) -> str:
        names, budget = planning.made_from(crop.routes, group), self.request.budget
        code = {"code": code_digest("ensemble.build"), "libraries": library_versions()}
        if all(isinstance(crop.routes[name].source, EmptySource) for name in group):
            return digest({"grid": crop.target.grid, "empty": group, **code})
        return digest(
            {
                "grid": crop.target.grid,
                "group": group,
                "routes": {name: describe.describe_route(crop.routes[name]) for name in names},
                "order": [name for name in crop.routes if name in group],
                "jobs": [
                    (job.source, predictions.shared_key(self.predicting.keys[id(job)]))
                    for job in crop.jobs
                    if set(job.classes) & set(names)
                ],
                "stored": {
                    f"{name} {source}": field.identity
                    for (name, source), field in self.predicting.given[crop.target.crop].items()
                    if name in names
                },
                "joint": self.joint,
                "cut_within": budget.split_bytes if budget.may_coarsen(crop) else None,
                **code,
            }
        )

    def _assemble(self) -> dict[str, list[dict[str, Any]]]:
        """The outcomes of every crop's groups."""
        self.progress.stage(
            "assemble", sum(crop.target.grid.size * len(crop.target.classes) for crop in self.plan.crops)
        )
        outcomes: dict[str, list[dict[str, Any]]] = {}
        done = 0
        for crop in self.plan.crops:
            target = crop.target
            for group in groups_of(crop, joint=self.joint):
                key = self._groups[target.crop, group]
                outcome = self.work.finished(target, group, key)
                if outcome is None:
                    outcome = self._assemble_one(crop, group, key, done)
                    self._assembled += 1
                outcomes.setdefault(target.group, []).append(outcome)
                done += target.grid.size * len(group)
                self.progress.at(done)
        return outcomes

    def _assemble_one(self, crop: CropPlan, group: tuple[str, ...], key: str, done: int) -> dict[str, Any]:
        target, share_of = crop.target, crop.target.grid.size * len(group)
        journal = self.work.begin(target, group, key)
        one = CropAssembly(
            crop,
            Probability(crop, self.predicting.fields(crop)),
            lambda name, dtype, *, keep=False: self.work.temporary(target, name, dtype, keep=keep),
            lambda name, dtype, *, keep=False: self.work.array(target, name, dtype, keep=keep),
            self.request.budget,
            lambda what, share: self.progress.at(
                done + share_of * share / 2, f"crop {target.crop}: {what} {share:.0%}"
            ),
            self.progress.say,
        )
        try:
            outcome = asdict(assemble_group(one, group, joint=self.joint, journal=journal))
        except VolumeError as error:
            raise self._without_damaged(crop, error) from error
        self.work.finish(target, group, key, outcome, journal)
        return outcome

    def _without_damaged(self, crop: CropPlan, error: VolumeError) -> VolumeError:
        """The error, or what to do about it where it is this build's own stored prediction that is damaged."""
        for kept in map(self.predicting.keep, crop.jobs):
            if str(error).startswith(str(kept.place)):
                kept.forget()
                return VolumeError(f"{error}: it was dropped; run the same command again to predict it anew")
        return error

    # -- packing, checking, recording

    def _pack(self, outcomes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        targets = [crop.target for crop in self.plan.crops]
        changes = {group: DecodingChanges() for group in outcomes}
        for group, found in outcomes.items():
            for outcome in found:
                changes[group].add(DecodingChanges.of(outcome["decoding"]))
        decided = {group: asdict(one) for group, one in changes.items() if one.by_class}
        attributes = {
            "consistency": self.recipe.consistency,
            "unclaimed": {crop.target.group: list(crop.unclaimed) for crop in self.plan.crops if crop.unclaimed},
            "decoding": {group: one["by_class"] for group, one in decided.items()},
            "contradictions_before": {group: one["before"] for group, one in decided.items()},
            "trained_on": {target.group: seen for target in targets if (seen := self._trained_on(target))},
        }
        self.progress.stage("pack", 1)
        submission.write_group_files(self.work.store, targets, attributes)
        submission.pack(self.work.store, self.request.zip, targets, self._at)

    def _at(self, done: int, total: int) -> None:
        self.progress.at(done / max(total, 1))

    def _trained_on(self, target: Target) -> list[str]:
        """The sources of a crop whose models have seen it in training, so that scores there are known to flatter."""
        used = planning.sources_of(self.recipe, target) & self.prepared.models.keys()
        return sorted(name for name in used if target.crop in self.prepared.models[name].card.trained_on)

    def _check(self) -> CheckReport:
        self.progress.stage("check", 1)
        targets = [crop.target for crop in self.plan.crops]
        report = checking.check(self.request.zip, targets, self._at)
        for target in targets:
            # what is damaged on disk is made anew by the next build
            if any(fault.startswith(f"{target.group}/") for fault in report.faults):
                self.work.forget(target.crop)
                self._state.unlink(missing_ok=True)
        write_text(self.request.out / "check.json", report.to_json())
        return report

    def _note_costs(self) -> None:
        """What this run took, and what of it was kept from before."""
        costs = {
            "stages": self.progress.stages(),
            "predictions": len(self.plan.jobs),
            "predictions_kept": self.predicting.kept,
            "forward_passes": self.predicting.passes,
            "groups": len(self._groups),
            "groups_kept": len(self._groups) - self._assembled,
        }
        write_json(self.request.out / "costs.json", costs)

    def _record(self, report: CheckReport) -> str:
        models = {f"model.{name}": f"{m.name} version {m.version}" for name, m in self.prepared.models.items()}
        try:
            return self.store.log_run(
                BUILDS,
                self.recipe.name,
                params={"recipe": self.recipe.name, "consistency": self.recipe.consistency, **models},
                metrics={"faults": len(report.faults), "warnings": len(report.warnings), "empty": len(report.empty)},
                tags={"out": str(self.request.out.resolve())},
                artifacts=[
                    self.recipe.path,
                    *(self.request.out / name for name in ("lock.yaml", "plan.json", "check.json")),
                ],
            )
        except RegistryError as error:
            raise RegistryError(
                f"{self.request.zip} is complete and checked, but could not be recorded: {error}; "
                "run the same command again to record it"
            ) from error


def _checked(path: Path) -> CheckReport | None:
    """What an earlier check said; None where that is not there, or damaged."""
    try:
        return CheckReport.from_json(path.read_text())
    except (OSError, ValueError):
        return None


def _stamp(path: Path) -> dict[str, int] | None:
    """What tells one file of a name from another without reading it."""
    if not path.exists():
        return None
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
