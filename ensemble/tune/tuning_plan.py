"""What a tuning would do and how long it would take, before an evening is spent on it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble.core import load_manifest, select_targets
from ensemble.plan import Plan, load_recipe, prepare, sources_in
from ensemble.predict import Predictor, time_networks
from ensemble.support import QuietProgress, RecipeError, load_yaml, write_text
from ensemble.tune.candidates import Candidates
from ensemble.tune.folds import TuningUnit
from ensemble.tune.space import Space
from ensemble.tune.tuning import TuningTask
from ensemble.tune.units import most_voxels, units_of
from registry import Registry

EVALUATED_VOXELS_PER_S = 1_500_000
"""Decided, labelled and counted for one class on two cores; sources and objects make it three times more or less."""


@dataclass(frozen=True)
class TuningPlan:
    """``survey`` are the passes of all networks that may be tried, ``found`` how many of them are stored already.

    ``units`` are what is tuned with what may be chosen; ``skipped`` says of models why they are not tried.
    ``evaluated_voxels`` are at most decided and counted. Seconds are estimates.
    """

    survey: Plan
    units: Mapping[TuningUnit, Space]
    skipped: tuple[str, ...]
    found: int
    evaluated_voxels: int
    predicting_s: float

    @property
    def searching_s(self) -> float:
        return self.evaluated_voxels / EVALUATED_VOXELS_PER_S

    def candidates(self, unit: TuningUnit) -> tuple[str, ...]:
        """The sources that may be tried for a unit."""
        return tuple(dict.fromkeys(name for source in self.units[unit].sources for name in sources_in(source)))


def plan_tuning(task: TuningTask, registry: Registry) -> TuningPlan:
    """What ``tune`` would do. A patch of each network that was never timed here is; nothing else runs.

    Raises what ``tune`` raises before it begins, such as for truth that a model was trained on.
    """
    request, recipe = task.request, load_recipe(task.request.recipe)
    targets = select_targets(load_manifest(request.manifest), request.crops, request.classes)
    candidates = Candidates.of(recipe, targets, task.truth, registry, registered=task.registered, augment=task.augment)
    units = units_of(recipe, targets, candidates, task.truth, request.data_root)
    raw, _ = load_yaml(recipe.path, RecipeError)
    with tempfile.TemporaryDirectory(prefix="ensemble-tune-") as folder:
        survey = Path(folder, "survey.yaml")
        write_text(survey, candidates.survey(raw, request.data_root))
        request = replace(request, recipe=survey)
        ready = prepare(request, registry)
        candidates.refuse_leaks(ready.models, force=task.force)
        predictor = Predictor.of(request, ready, registry, QuietProgress())
    request.budget.check(ready.plan)
    to_compute = predictor.open_jobs
    time_networks(request, ready, registry, QuietProgress(), to_compute, predictor.uses)
    return TuningPlan(
        survey=ready.plan,
        units=units,
        skipped=candidates.skipped(request.data_root),
        found=len(ready.plan.jobs) - len(to_compute),
        evaluated_voxels=most_voxels(units, targets, task.trials, joint=recipe.consistency == "joint"),
        predicting_s=ready.hours(to_compute).predicting_s or 0,
    )
