"""The recipe that scores best on validation truth, class by class, by gains that held-out truth confirms.

Everything lies under OUT/work as in a build: predictions are the builder's own, each network runs once; what was
evaluated is remembered, so that an interrupted tuning goes on. The scores that are promised are those of the tuned
recipe built and scored like any other.
"""

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ensemble.build import Workspace, build, made_from, refuse_to_replace
from ensemble.core import Target, is_instance, load_manifest, select_targets
from ensemble.engine import OnDask
from ensemble.plan import Prepared, Recipe, Request, describe_route, load_recipe, prepare, route_in_words
from ensemble.predict import SURVEYED, Fields, Predictor, SharedPredictions
from ensemble.scoring import ArrayStatus, Scores, Tally, overall_scores, score
from ensemble.storage import open_truth
from ensemble.support import (
    EnsembleError,
    Progress,
    QuietProgress,
    RecipeError,
    RegistryError,
    code_digest,
    digest,
    library_versions,
    load_yaml,
    write_text,
)
from ensemble.tune.candidates import Candidates
from ensemble.tune.curves import draw_curves
from ensemble.tune.folds import FOLDS, FoldEvaluator, TuningUnit, score_of
from ensemble.tune.output import TuningResult, recipe_text, results_as_json
from ensemble.tune.search import Coupled, Effort, tune_alone, tune_joint
from ensemble.tune.selection import MARGIN, Chosen
from ensemble.tune.space import Space
from ensemble.tune.units import units_of
from registry import TUNINGS, Registry


@dataclass(frozen=True)
class TuningTask:
    """What to tune, and by what. ``request`` is as for a build of the recipe; its ``out`` is where work lies.

    ``registered``: also try registered models that the recipe does not name. Once ``minutes`` are over no trial begins,
    and no prediction but what the recipe itself needs.
    """

    request: Request
    truth: Path
    to: Path
    trials: int = 24
    minutes: float | None = None
    force: bool = False
    augment: bool = True
    registered: bool = False


@dataclass(frozen=True)
class Tuned:
    """What tuning came to: a result for each class, official scores before and after, and leaks that were forced."""

    results: tuple[TuningResult, ...]
    before: Scores
    after: Scores
    recipe: Path
    leaks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    run_id: str | None = None

    @property
    def overall_before(self) -> float:
        return overall_of(self.before)

    @property
    def overall_after(self) -> float:
        return overall_of(self.after)


def tune(task: TuningTask, registry: Registry, progress: Progress | None = None, engine: OnDask | None = None) -> Tuned:
    """Write the tuned recipe, with ``.json`` and pictures of curves beside it, and record both in MLflow.

    Networks run, and builds are made, by the workers of ``engine``, a cluster, or on this machine; the search is here.

    Raises an EnsembleError for whatever a person must mend, such as truth that a model was trained on.
    """
    request = task.request
    recipe = load_recipe(request.recipe)
    raw, _ = load_yaml(recipe.path, RecipeError)
    targets = select_targets(load_manifest(request.manifest), request.crops, request.classes)
    candidates = Candidates.of(recipe, targets, task.truth, registry, registered=task.registered, augment=task.augment)
    told = progress or QuietProgress()
    return _Tuning(task, registry, told, recipe, raw, targets, candidates, engine).run()


class _Tuning:
    """``raw`` is what the recipe's file says, as plain values."""

    def __init__(
        self,
        task: TuningTask,
        registry: Registry,
        progress: Progress,
        recipe: Recipe,
        raw: dict[str, Any],
        targets: Sequence[Target],
        candidates: Candidates,
        engine: OnDask | None,
    ) -> None:
        self.task, self.registry, self.progress, self.engine = task, registry, progress, engine
        self.recipe, self.raw, self.targets, self.candidates = recipe, raw, targets, candidates
        self.out = task.request.out
        minutes = float("inf") if task.minutes is None else task.minutes
        self.effort = Effort(task.trials, time.monotonic() + 60 * minutes)

    def run(self) -> Tuned:
        self._check_places()
        request = self.task.request
        base = prepare(request, self.registry)
        base.check()
        survey_recipe = self.out / "work" / "survey.yaml"
        write_text(survey_recipe, self.candidates.survey(self.raw, request.data_root))
        survey = prepare(replace(request, recipe=survey_recipe), self.registry)
        leaks = self.candidates.refuse_leaks(survey.models, force=self.task.force)
        request.budget.check(survey.plan)
        with Workspace(request.work).alone(), threadpool_limits(1, "blas"):
            # the survey first: what it predicts holds all that the recipe itself needs
            predictors = [
                Predictor.of(request, ready, self.registry, self.progress, self.engine) for ready in (survey, base)
            ]
            request.keep()
            keys = (key for predictor in predictors for key in predictor.keys.values())
            SharedPredictions(request.predictions).need(self._surveyed, keys)
            self._predict(predictors, base)
            evaluator = self._evaluator((survey, base), predictors)
            units = units_of(self.recipe, self.targets, self.candidates, self.task.truth, request.data_root)
            chosen = self._choose(units, evaluator)
            consistency = self._together(units, chosen, evaluator)
        tuned = self._finish(units, chosen, consistency, leaks)
        self._surveyed.unlink(missing_ok=True)
        return tuned

    def _predict(self, predictors: Sequence[Predictor], base: Prepared) -> None:
        """What the recipe needs in any case, then what may be tried besides, as far as there is time."""
        needed = {job.source for job in base.plan.jobs}
        late = predictors[0].run(until=self.effort.deadline, may_lack=self.candidates.sources.keys() - needed)
        if late:
            self.progress.say(f"--minutes {self.task.minutes:g} are over: left out for lack of time: {', '.join(late)}")
            self.candidates.leave_out(late)
        predictors[1].run()

    @property
    def _surveyed(self) -> Path:
        """The note of the predictions that tuning needs, beside those of the builds at its end."""
        return self.task.request.work / SURVEYED

    def _check_places(self) -> None:
        """Raise EnsembleError for what would fail only after hours of work."""
        to = self.task.to
        if to.suffix not in (".yaml", ".yml"):
            raise EnsembleError(f"--out {to}: a recipe is written there; let its name end in .yaml")
        if to.is_dir() or (to.exists() and to.resolve() == self.recipe.path.resolve()):
            raise EnsembleError(
                f"--out {to}: would replace {'a folder' if to.is_dir() else 'the recipe'}; name another"
            )
        if to.exists() and not to.with_suffix(".json").exists():
            raise EnsembleError(f"--out {to}: would replace a recipe that no tuning wrote; name another, or remove it")
        for folder in (to.parent, self.out / "work"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EnsembleError(f"{folder}: cannot be made: {error.strerror}") from error
        shutil.copyfile(self.recipe.path, self._in_hand.recipe)
        refuse_to_replace(self._in_hand, made_from(self._in_hand, self.targets))
        if not any(open_truth(self.task.truth, t, name) for t in self.targets for name in t.classes):
            raise EnsembleError(f"{self.task.truth}: holds truth for no array of the manifest; correct --truth")

    # -- what is judged by

    def _evaluator(self, prepared: Sequence[Prepared], predictors: Sequence[Predictor]) -> FoldEvaluator:
        base = prepared[-1]
        fields_of: dict[str, Fields] = {}

        def fields(crop: str) -> Fields:
            if crop not in fields_of:
                fields_of[crop] = {}
                for ready, predictor in zip(prepared, predictors, strict=True):
                    plan = next(p for p in ready.plan.crops if p.target.crop == crop)
                    jobs = tuple(job for job in plan.jobs if job.source in self.candidates.sources)
                    plan = replace(plan, jobs=jobs)
                    fields_of[crop] = {**predictor.fields(plan), **fields_of[crop]}
            return fields_of[crop]

        given = [
            (crop, *key, field.identity)
            for predictor in predictors
            for crop, by_source in predictor.given.items()
            for key, field in by_source.items()
        ]
        identity = digest(
            {
                "predictions": sorted(key for predictor in predictors for key in predictor.keys.values()),
                "given": given,
                "truth": [self._truth_identity(target) for target in self.targets],
                "targets": [(t.crop, t.grid, t.classes) for t in self.targets],
                "recipe": [(c.target.crop, n, describe_route(r)) for c in base.plan.crops for n, r in c.routes.items()],
                "code": code_digest("ensemble.tune"),
                "packages": library_versions(),
            }
        )
        plans = {crop.target.crop: crop for crop in base.plan.crops}
        return FoldEvaluator.of(plans, fields, self.task.truth, identity, self.out / "work", self.task.request.budget)

    def _truth_identity(self, target: Target) -> list[str]:
        arrays = [array for name in target.classes for array in (name, f"{name}_mask")]
        volumes = [open_truth(self.task.truth, target, array) for array in arrays]
        return [volume.identity(volume.grid.box) for volume in volumes if volume is not None]

    # -- choosing

    def _choose(self, units: Mapping[TuningUnit, Space], evaluator: FoldEvaluator) -> dict[TuningUnit, Chosen]:
        self.progress.stage("tune", len(units))
        chosen = {}
        for index, (unit, space) in enumerate(units.items()):
            watch = partial(self.progress.at, index + 0.5)
            chosen[unit] = tune_alone(unit, space, evaluator, self.candidates.augmented, self.effort, watch)
            self.progress.at(index + 1)
        return chosen

    def _together(
        self, units: Mapping[TuningUnit, Space], chosen: dict[TuningUnit, Chosen], evaluator: FoldEvaluator
    ) -> str:
        """Tune what joint decoding couples, in rounds; returns the consistency that gains where it did not choose."""
        if self.recipe.consistency != "joint":
            return self.recipe.consistency
        self.progress.stage("tune together", 1)
        bases = {unit: space.base for unit, space in units.items()}
        routes = {unit: choice.route for unit, choice in chosen.items()}
        free = [unit for unit in units if not chosen[unit].kept_as_it_is]
        allows = {unit: self.candidates.narrowed(unit.name).allows for unit in units}
        coupled = Coupled(bases, free, allows, evaluator, _overall)
        taken = tune_joint(coupled, routes, self.effort, lambda what: self.progress.at(0.5, what))
        for unit, route in taken.items():
            if route != routes[unit]:
                changed = route != bases[unit]
                why = "gains beside the other classes" if changed else "the recipe's own is better beside the others"
                after = score_of(unit.name, evaluator.alone(unit, route))
                choice = replace(chosen[unit], route=route, changed=changed, why=why, after=after)
                chosen[unit] = replace(choice, held_out=None, next_best=None)
        joint, alone = (_least(coupled.worth(taken, together=together)) for together in (True, False))
        if self.recipe.tune.get("consistency") == "fixed" or alone < joint + MARGIN:
            return "joint"
        return "none"

    # -- the result

    def _finish(
        self,
        units: Mapping[TuningUnit, Space],
        chosen: dict[TuningUnit, Chosen],
        consistency: str,
        leaks: Mapping[str, Sequence[str]],
    ) -> Tuned:
        """Whole crops confirm what halves chose, by building and scoring; only then is the recipe written."""
        before = self._official(self.recipe.path)
        draft = self.out / "work" / "tuned.yaml"

        def built() -> Scores:
            results = [self._result(unit, choice, before, None) for unit, choice in chosen.items()]
            self._write(draft, results, consistency)
            return self._official(draft)

        after = built()
        together = consistency == "joint"
        worse = [] if together else [u for u in units if chosen[u].changed and _is_worse(u.name, before, after)]
        if worse or overall_of(after) < overall_of(before):
            for unit in worse or units:
                chosen[unit] = chosen[unit].taken_back(units[unit].base)
            consistency = consistency if worse else self.recipe.consistency
            after = built()
        results = [self._result(unit, choice, before, after) for unit, choice in chosen.items()]
        self._write(self.task.to, results, consistency)
        after = self._official(self.task.to)
        overall = {"before": overall_of(before), "after": overall_of(after)}
        write_text(self.task.to.with_suffix(".json"), results_as_json(results, overall, leaks))
        pictures = self._draw(units, chosen)
        try:
            run_id = self._record(results, before, after, leaks, pictures)
        except RegistryError as error:  # hours of work lie in the recipe that is written
            self.progress.say(f"not recorded: {error}")
            run_id = None
        return Tuned(tuple(results), before, after, self.task.to, leaks, run_id)

    def _official(self, recipe: Path) -> Scores:
        """Of a recipe, built as the one that tuning has in hand."""
        request = self._in_hand
        shutil.copyfile(recipe, request.recipe)
        build(request, self.registry, self.progress, self.engine)
        return score(request.zip, self.task.truth, self.targets, progress=self.progress)

    @property
    def _in_hand(self) -> Request:
        return replace(self.task.request, recipe=self.out / "work" / "in_hand.yaml")

    def _write(self, to: Path, results: Sequence[TuningResult], consistency: str) -> None:
        write_text(to, recipe_text(self.recipe, self.raw, results, self.candidates.extra, consistency))

    def _result(self, unit: TuningUnit, chosen: Chosen, before: Scores, after: Scores | None) -> TuningResult:
        gain = None
        if after is not None:
            perfect = after.by_class | {unit.name: 1.0}
            gain = _overall_of(perfect, after.instance_classes) - overall_of(after)
        shown = (_shown(unit.name, before), None if after is None else _shown(unit.name, after))
        return TuningResult(unit, chosen, *shown, gain)

    def _draw(self, units: Mapping[TuningUnit, Space], chosen: Mapping[TuningUnit, Chosen]) -> list[Path]:
        folder = self.task.to.with_name(f"{self.task.to.stem}_curves")
        shutil.rmtree(folder, ignore_errors=True)
        pictures = []
        for unit, choice in chosen.items():
            if choice.curves:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', unit.label).strip('_')}.png"
                draw_curves(unit.label, choice.curves, units[unit].thresholds, choice.route.threshold, path)
                pictures.append(path)
        return pictures

    def _record(
        self,
        results: Sequence[TuningResult],
        before: Scores,
        after: Scores,
        leaks: Mapping[str, Any],
        pictures: Sequence[Path],
    ) -> str:
        beside = [self.task.to, self.task.to.with_suffix(".json"), *({pictures[0].parent} if pictures else ())]
        tags = {"trained_on": ", ".join(leaks)} if leaks else {}
        metrics = {"overall_before": overall_of(before), "overall_after": overall_of(after)}
        name = self.recipe.name
        runs = self.registry.runs
        parent = runs.record(TUNINGS, name, params={}, metrics=metrics, tags=tags, artifacts=beside)
        for result in results:
            chosen = result.chosen
            folds = {"folds_before": chosen.before, "folds_after": chosen.after, "held_out": chosen.held_out}
            runs.record(
                TUNINGS,
                result.unit.label,
                params={"route": route_in_words(chosen.route)[:500], "why": chosen.why},
                metrics={key: value for key, value in folds.items() if value is not None},
                tags={},
                parent=parent,
            )
        return parent


def _left_out(name: str, scores: Scores) -> bool:
    """Whether a crop of a class has too many objects: officially it is left out, and compares with none."""
    return any(arrays[name].status == ArrayStatus.TOO_MANY for arrays in scores.arrays.values() if name in arrays)


def _shown(name: str, scores: Scores) -> float | None:
    return None if _left_out(name, scores) else scores.by_class.get(name)


def _is_worse(name: str, before: Scores, after: Scores) -> bool:
    """Whether a class officially lost."""
    return not _left_out(name, before) and after.by_class[name] < before.by_class[name] - 1e-9


def overall_of(scores: Scores) -> float:
    """The official overall score; where there is only one kind of classes, which it makes 0, their mean."""
    return _overall_of(scores.by_class, scores.instance_classes)


def _overall_of(by_class: Mapping[str, float], instances: frozenset[str]) -> float:
    kinds = {name in instances for name in by_class}
    if len(kinds) == 2:
        return overall_scores(by_class, instances).score
    return sum(by_class.values()) / len(by_class) if by_class else 0.0


def _least(by_class: Mapping[str, Sequence[Tally]]) -> float:
    """Overall, in the fold where it is least."""
    return min(_overall({name: [tallies[k]] for name, tallies in by_class.items()}) for k in range(FOLDS))


def _overall(tallies: Mapping[str, Sequence[Tally]]) -> float:
    """The overall score of these classes (see ``overall_of``)."""
    scores = {name: score_of(name, of_class) for name, of_class in tallies.items()}
    return _overall_of(scores, frozenset(name for name in scores if is_instance(name)))
