"""From a recipe to a checked submission: resolve, plan, predict, assemble, pack, check, record.

Everything lies under OUT: ``submission.zip``, ``lock.yaml``, ``plan.json``, ``check.json`` and ``costs.json`` are the
result, ``work/`` is what a resumed build goes on from and may be removed at any time. What networks predicted lies
beside OUT, where other builds find it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ensemble.build.crops import Crops
from ensemble.build.earlier import SET_ASIDE, drop_replaced, made_from, make_room
from ensemble.build.workspace import Workspace
from ensemble.core import DecodingChanges, Target
from ensemble.decode import GroupOutcome
from ensemble.engine import Engine, Here, OnDask
from ensemble.plan import (
    Plan,
    Prepared,
    Request,
    lock_contents,
    prepare,
    sources_of,
    units,
    write_lock,
)
from ensemble.predict import Predictor, SharedPredictions
from ensemble.submission import CheckReport, check, pack, write_group_files
from ensemble.support import (
    Costs,
    Progress,
    QuietProgress,
    RegistryError,
    StageCost,
    counted,
    digest,
    read_sealed,
    refuse_links,
    without_credentials,
    write_json,
    write_sealed,
    write_text,
)
from registry import BUILDS, DataUsed, Registry, build_note

PROCESSES_FROM_CLASS_VOXELS = 1 << 30
"""Voxels times classes that processes are started for: threads have done less before those have begun."""

_AFTER_PREDICTING = ("assemble", "pack", "check")
_RESULTS = ("plan.json", "check.json", "costs.json")


@dataclass(frozen=True)
class Built:
    """A finished build; ``run_id`` is None when everything was already done, or it could not be recorded.

    ``left_out`` arrays of the manifest were not asked for: with any, it is not for upload.
    """

    report: CheckReport
    run_id: str | None
    left_out: int = 0


def build(
    request: Request, registry: Registry, progress: Progress | None = None, engine: OnDask | None = None
) -> Built:
    """Build, check and record the submission that the request asks for; resumes where it left off.

    What is heavy is done by the workers of ``engine``, a cluster, or on this machine.

    Raises an EnsembleError for whatever a person must mend; nothing half-written is left in place of a result.
    """
    progress = progress or QuietProgress()
    prepared = prepare(request, registry)
    prepared.check()
    request.budget.check(prepared.plan)
    refuse_links(request.zip, request.out / SET_ASIDE)
    request.work.mkdir(parents=True, exist_ok=True)
    with Workspace(request.work).alone(), threadpool_limits(1, "blas"):
        costs = Costs(progress)
        predictor = Predictor.of(request, prepared, registry, costs, engine)
        with ExitStack() as stack:
            doing = engine or stack.enter_context(_here(request, prepared.plan))
            return _Build(request, prepared, registry, costs, predictor, doing).run()


def _here(request: Request, plan: Plan) -> Here:
    """Processes of this machine where there is enough to do for them."""
    workers = request.budget.deciding_workers
    voxels = sum(crop.target.grid.size * len(crop.claimed) for crop in plan.crops)
    in_processes = workers > 1 and voxels >= PROCESSES_FROM_CLASS_VOXELS
    return Here(workers, in_processes=in_processes, memory_bytes=request.budget.tasks_bytes)


class _Build:
    def __init__(
        self,
        request: Request,
        prepared: Prepared,
        registry: Registry,
        progress: Costs,
        predictor: Predictor,
        engine: Engine,
    ) -> None:
        self.request, self.prepared, self.registry = request, prepared, registry
        self.progress, self.predictor, self.engine = progress, predictor, engine
        self.plan, self.recipe, self.work = prepared.plan, prepared.plan.recipe, Workspace(request.work)
        self.crops = Crops(self.plan, predictor, self.work, request.budget, progress)

    def run(self) -> Built:
        request = self.request
        write_fault = self.registry.runs.write_fault()
        if write_fault is not None:
            self.progress.say(f"{write_fault}; the build goes on and will not be recorded")
        for line in (*self.prepared.moved, *self.prepared.warnings):
            self.progress.say(line)
        wanted = made_from(request, [crop.target for crop in self.plan.crops])
        prepared, uses = self.prepared, self.predictor.uses
        locked = lock_contents(
            self.plan, prepared.models, request.manifest, request.data_root, prepared.threads, uses, wanted
        )
        key = digest({"groups": list(self.crops.keys.values()), "models": locked["models"], "recipe": self.recipe.name})
        kept = read_sealed(self._state)
        state = kept if isinstance(kept, dict) else {}
        if state.get("key") != key or state.get("zip") != _stamp(request.zip) or not request.lock.exists():
            if place := make_room(request, wanted):
                self.progress.say(f"{request.zip}: set aside in {place}, where its lock and report are kept")
            write_lock(request.lock, locked)
            request.keep()
            self._note_needed()
            for line in self.predictor.look_ahead() if self.predictor.open_jobs else ():
                self.progress.say(line)
            self.predictor.run()
            self._pack(self.crops.assemble(self.engine))
            for page in request.pages:
                page.unlink(missing_ok=True)  # they were another submission's
            drop_replaced(request)
            state = {"key": key, "zip": _stamp(request.zip)}
            write_sealed(self._state, state)
        checked = _checked(request.out / "check.json")
        if state.get("run_id") and checked and all((request.out / name).exists() for name in _RESULTS):
            self.progress.say(f"{request.zip}: everything is done already")
            return Built(checked, None, self.plan.left_out)
        report = self._check()
        described = self.prepared.described(request.budget, uses=self.predictor.uses)
        write_json(request.out / "plan.json", described.as_plain())
        self._note_costs()
        run_id = None if write_fault else self._record(report)
        # with faults the next build packs anew, from crops assembled anew
        write_sealed(self._state, {"run_id": run_id} if report.faults else {**state, "run_id": run_id})
        return Built(report, run_id, self.plan.left_out)

    @property
    def _state(self) -> Path:
        return self.work.root / "state.json"

    def _note_needed(self) -> None:
        arrays = (f"{c.target.group}/{name}" for c in self.plan.crops for name in c.target.classes)
        shared = SharedPredictions(self.request.predictions)
        self.work.need(shared, self.predictor.keys.values(), self.crops.keys.values(), arrays)

    # -- packing, checking, recording

    def _pack(self, outcomes: Mapping[str, Sequence[GroupOutcome]]) -> None:
        targets = [crop.target for crop in self.plan.crops]
        changes = {group: DecodingChanges() for group in outcomes}
        for group, of_group in outcomes.items():
            for outcome in of_group:
                changes[group].add(outcome.decoding)
        decided = {group: asdict(change) for group, change in changes.items() if change.by_class}
        attributes = {
            "consistency": self.recipe.consistency,
            "unclaimed": {crop.target.group: list(crop.unclaimed) for crop in self.plan.crops if crop.unclaimed},
            "decoding": {group: change["by_class"] for group, change in decided.items()},
            "contradictions_before": {group: change["before"] for group, change in decided.items()},
            "trained_on": {target.group: seen for target in targets if (seen := self._trained_on(target))},
        }
        self.progress.stage("pack", 1)
        write_group_files(self.work.store, targets, attributes)
        pack(self.work.store, self.request.zip, targets, self._at)

    def _at(self, done: int, total: int) -> None:
        self.progress.at(done / max(total, 1))

    def _trained_on(self, target: Target) -> list[str]:
        """The sources of a crop whose models have seen it in training, so that scores there are known to flatter."""
        used = sources_of(self.recipe, target) & self.prepared.models.keys()
        return sorted(name for name in used if target.crop in self.prepared.models[name].card.trained_on)

    def _check(self) -> CheckReport:
        self.progress.stage("check", 1)
        targets = [crop.target for crop in self.plan.crops]
        report = check(self.request.zip.resolve(), targets, self._at, self.engine)
        for target in targets:
            if any(fault.startswith(f"{target.group}/") for fault in report.faults):
                self.work.forget(target.crop)
        write_text(self.request.out / "check.json", report.to_json())
        return report

    def _note_costs(self) -> None:
        """What this run took, and what of it was kept from before."""
        stages = self.progress.stages()
        self._note_pace(stages)
        costs: dict[str, Any] = {
            "stages": [asdict(stage) for stage in stages],
            "predictions": len(self.plan.jobs),
            "predictions_kept": self.predictor.kept,
            "forward_passes": self.predictor.passes,
            "groups": len(self.crops.keys),
            "groups_kept": len(self.crops.keys) - self.crops.made,
        }
        write_json(self.request.out / "costs.json", costs)

    def _note_pace(self, stages: Sequence[StageCost]) -> None:
        """Keep what all arrays took after predicting, where none of them was there before."""
        amount = units(self.plan)
        if self.crops.made == len(self.crops.keys) and amount:
            seconds = sum(stage.seconds for stage in stages if stage.stage in _AFTER_PREDICTING)
            pacing = self.prepared.pacing
            pacing.paces.keep(pacing.assembling(self.plan), seconds / amount)

    def _record(self, report: CheckReport) -> str | None:
        """The id of the MLflow run that tells of this build; None, and said, where the registry does not take it."""
        models = {f"model.{name}": f"{m.name} version {m.version}" for name, m in self.prepared.models.items()}
        left_out = counted(self.plan.left_out, "array")
        partial = {"partial": f"{left_out} of the manifest left out"} if self.plan.left_out else {}
        try:
            return self.registry.runs.record(
                BUILDS,
                self.recipe.name,
                params={"recipe": self.recipe.name, "consistency": self.recipe.consistency, **models},
                metrics={"faults": len(report.faults), "warnings": len(report.warnings), "empty": len(report.empty)},
                tags={"out": str(self.request.out.resolve()), **partial},
                artifacts=[
                    self.recipe.path,
                    *(self.request.out / name for name in ("lock.yaml", "plan.json", "check.json")),
                ],
                data=self._data(),
                note=build_note((m.name, m.version) for m in self.prepared.models.values()),
            )
        except RegistryError as error:
            self.progress.say(f"not recorded: {error}; the same command records it once that is mended")
            return None

    def _data(self) -> list[DataUsed]:
        """A digest for each crop of all that was made from it and its EM."""
        root, keys = without_credentials(self.request.data_root), self.crops.keys
        return [
            DataUsed(
                f"{crop.target.dataset} crop {crop.target.crop}",
                digest([key for (name, _), key in keys.items() if name == crop.target.crop]),
                root,
                "prediction",
            )
            for crop in self.plan.crops
        ]


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
