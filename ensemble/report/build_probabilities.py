"""The probabilities that a finished build was decided by, where its recipe, models and predictions are at hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box
from ensemble.decode import Probability, ProbabilityField
from ensemble.plan import CropPlan, MixedSource, PlanDescription, Request, Route, prepare, sources_in
from ensemble.predict import Predictor
from ensemble.report.finished_build import FinishedBuild, plan_described
from ensemble.support import EnsembleError, Progress
from registry import Registry

CropFields = Mapping[tuple[str, str], ProbabilityField]
"""A crop's probabilities by class and source."""


@dataclass(frozen=True)
class ClassProbability:
    """One class of a crop, as its sources have it."""

    plan: CropPlan
    fields: CropFields
    name: str

    @property
    def route(self) -> Route:
        return self.plan.routes[self.name]

    @property
    def probability(self) -> Probability:
        """Of all classes of the crop."""
        return Probability(self.plan, self.fields)

    def unfilled(self, box: Box) -> NDArray[np.float32]:
        """Its mixed probability, without holes that were filled."""
        return self.probability.unfilled(self.name, box)

    def spread(self, box: Box) -> NDArray[np.float32] | None:
        """Highest minus lowest probability among the members of a mix; None where there is one source."""
        route = self.route
        names = sources_in(route.source)
        if not isinstance(route.source, MixedSource) or len(names) < 2:
            return None
        grid = self.plan.target.grid.sub(box)
        fields = [self.fields[self.name, source] for source in names if (self.name, source) in self.fields]
        each = [field.probability(grid, route.resampling) for field in fields]
        return np.asarray(np.max(each, axis=0) - np.min(each, axis=0)) if len(each) > 1 else None


@dataclass(frozen=True)
class BuildProbabilities:
    """By crop ("557") its plan and its probabilities; both are empty where they cannot be had."""

    plans: Mapping[str, CropPlan] = field(default_factory=dict)
    fields: Mapping[str, CropFields] = field(default_factory=dict)

    @classmethod
    def open(
        cls, build: FinishedBuild, store: Registry, progress: Progress, crop: str | None = None
    ) -> "BuildProbabilities":
        """Those of all crops, or of one.

        Raises EnsembleError where the recipe's models or data are no longer at hand, or not those of the build.
        """
        request = Request.again(build.out)
        prepared = prepare(request, store)
        _refuse_other(build, prepared.described(request.budget))
        predictor = Predictor.of(request, prepared, store, progress)
        plans = {plan.target.crop: plan for plan in prepared.plan.crops if crop in (None, plan.target.crop)}
        return cls(plans, {name: predictor.fields(plan) for name, plan in plans.items()})

    def of(self, crop: str, name: str) -> ClassProbability | None:
        """A class's in a crop; None where it is not at hand, or the class is zeros on purpose."""
        plan = self.plans.get(crop)
        if plan is None or name not in plan.claimed:
            return None
        return ClassProbability(plan, self.fields[crop], name)


def _refuse_other(build: FinishedBuild, now: PlanDescription) -> None:
    """Raises EnsembleError where the recipe or the manifest says something else than when the build was made."""
    asked = plan_described(json.loads(json.dumps(now.as_plain())), build.out).crops
    for crop, built in build.plan.crops.items():
        again = asked.get(crop)
        if again is None or (again.dataset, again.grid, again.classes) != (built.dataset, built.grid, built.classes):
            raise EnsembleError(f"recipe or manifest have changed since the build (crop {crop}); build again")
