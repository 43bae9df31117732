"""The routes that are tried for a class: all of them where one pass tells, else those that Optuna proposes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.core import is_instance
from ensemble.plan import Expression, MixedSource, Route, source_in_words
from ensemble.scoring import Tally
from ensemble.tune.folds import FOLDS, FoldEvaluator, Tallies, TuningUnit, score_of
from ensemble.tune.selection import MARGIN, Chosen, Tried, choose
from ensemble.tune.space import PLAIN_THRESHOLD, Space, complexity

if TYPE_CHECKING:
    from optuna import Trial

SEED = 0
MIN_VOXELS, MIN_OBJECTS = 100, 2
"""Of truth in every fold; with less nothing is chosen."""
WEIGHTS: tuple[float | Literal["hard"], ...] = (0.5, 1.0, 2.0, "hard")
SIMPLIFIED = 3
"""The best routes of a search are tried in simpler forms too."""
ROUNDS = 3
NUDGES = (-0.1, -0.05, 0.05, 0.1)
MOST_OPTIONS = 2 + len(NUDGES) + len(WEIGHTS)
"""Of a unit in a round: as it is, the recipe's own, moved, and weighed otherwise."""

Watch = Callable[[str], None]
"""Told what is at work."""


@dataclass(frozen=True)
class Effort:
    """``trials`` for each of a class's searches; none begins after ``deadline`` (of time.monotonic)."""

    trials: int = 24
    deadline: float = float("inf")

    @property
    def over(self) -> bool:
        return time.monotonic() > self.deadline


def tune_alone(
    unit: TuningUnit, space: Space, evaluator: FoldEvaluator, augmented: frozenset[str], effort: Effort, watch: Watch
) -> Chosen:
    """The route of a class that stands alone."""
    before = evaluator.alone(unit, space.base)
    lacking = _too_little(unit.name, before)
    score = partial(score_of, unit.name)
    if lacking or _is_single(space):
        now = score(before)
        return Chosen(space.base, now, now, now, False, None, lacking or "fixed", kept_as_it_is=True)
    if space.by_curve:
        tried, curves = _by_curve(unit, space, evaluator, watch)
    else:
        tried, curves = _by_trials(unit, space, evaluator, effort, watch), {}
    return replace(choose(space.base, tried, score, lambda route: complexity(route, augmented)), curves=curves)


def _is_single(space: Space) -> bool:
    return len(space.sources) == 1 and len(space.thresholds) == 1 and not space.objects


def _too_little(name: str, tallies: Tallies) -> str:
    """Why the truth does not suffice to choose by; "" where it does."""
    least = min(tally.tp + tally.fn for tally in tallies)
    needed, what = (MIN_OBJECTS, "objects") if is_instance(name) else (MIN_VOXELS, "voxels")
    return f"too little truth: {least} {what} in a fold, {needed} are needed" if least < needed else ""


def _by_curve(
    unit: TuningUnit, space: Space, evaluator: FoldEvaluator, watch: Watch
) -> tuple[Tried, dict[str, list[float]]]:
    """Every source at every threshold; and the scores along the thresholds by source."""
    found: dict[Route, Tallies] = {}
    curves = {}
    for index, source in enumerate(space.sources):
        counts = evaluator.curve(unit, source, space.base, space.thresholds)
        for at, threshold in enumerate(space.thresholds):
            found[space.route(source, threshold)] = [_tally(counts[fold, at]) for fold in range(FOLDS)]
        routes = [space.route(source, threshold) for threshold in space.thresholds]
        curves[source_in_words(source)] = [score_of(unit.name, found[route]) for route in routes]
        watch(f"{unit.label}: source {index + 1} of {len(space.sources)}, best {max(map(max, curves.values())):.4f}")
    if space.base not in found:
        found[space.base] = evaluator.alone(unit, space.base)
    return Tried(found, [found] * FOLDS), curves


def _tally(counts: NDArray[np.int64]) -> Tally:
    tp, fp, fn = counts.tolist()
    return Tally(tp, fp, fn)


def _by_trials(unit: TuningUnit, space: Space, evaluator: FoldEvaluator, effort: Effort, watch: Watch) -> Tried:
    """A search on all folds, and one without each fold, that never sees what will judge it."""
    first = dict.fromkeys([space.base, *_plain(space)])
    common = {}
    for route in first:
        common[route] = evaluator.alone(unit, route)
    searches = []
    # Sources alone and mixes are searched apart, so that the simpler ones are not outnumbered.
    parts = [[s for s in space.sources if isinstance(s, MixedSource) == mixed] for mixed in (False, True)]
    for left_out in (None, *range(FOLDS)):
        folds = [k for k in range(FOLDS) if k != left_out]
        found = dict(common)
        for sources in filter(None, parts):
            found |= _search(unit, replace(space, sources=tuple(sources)), evaluator, folds, effort, watch)
        searches.append(found)
    return Tried(searches[0], searches[1:])


def _plain(space: Space) -> Iterator[Route]:
    """Every source alone at one half, so that every kind of route is tried at all."""
    threshold = PLAIN_THRESHOLD if PLAIN_THRESHOLD in space.thresholds else space.thresholds[0]
    objects = next(iter(space.objects), None)
    for source in space.sources:
        yield space.route(source, threshold, objects, next(iter(space.min_distances_nm), 0.0))


def _search(
    unit: TuningUnit, space: Space, evaluator: FoldEvaluator, folds: Sequence[int], effort: Effort, watch: Watch
) -> dict[Route, Tallies]:
    """What Optuna's search for the best on some folds came across."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[Route, Tallies] = {}
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    best = 0.0
    for number in range(effort.trials):
        if effort.over:
            break
        trial = study.ask()
        route = _proposed(trial, space)
        found[route] = evaluator.alone(unit, route)
        value = score_of(unit.name, [found[route][k] for k in folds])
        study.tell(trial, value)
        best = max(best, value)
        watch(f"{unit.label}: trial {number + 1} of {effort.trials} on {len(folds)} of {FOLDS} folds, best {best:.4f}")
    ranked = sorted(found, key=lambda route: -score_of(unit.name, [found[route][k] for k in folds]))
    for simpler in [simple for route in ranked[:SIMPLIFIED] for simple in _simpler(route, space)]:
        if not effort.over:
            found[simpler] = evaluator.alone(unit, simpler)
    return found


def _simpler(route: Route, space: Space) -> Iterator[Route]:
    """The same without watershed, and the same at one half: what the search may not have come across."""
    if any(step.method.name == "watershed" for step in route.steps) and "components" in space.objects:
        small = next((s for s in route.steps if s.method.name == "drop_small"), None)
        size = small.parameters["min_size_nm3"] if small else 0.0
        yield space.route(route.source, route.threshold, "components", 0.0, size or 0.0)
    if PLAIN_THRESHOLD in space.thresholds:
        yield replace(route, threshold=PLAIN_THRESHOLD)


def _proposed(trial: "Trial", space: Space) -> Route:
    source: Expression = space.sources[trial.suggest_categorical("source", list(range(len(space.sources))))]
    threshold = space.thresholds[trial.suggest_int("threshold", 0, len(space.thresholds) - 1)]
    if not space.objects:
        return space.route(source, threshold)
    suggested = trial.suggest_categorical("objects", list(space.objects))
    objects = next(kind for kind in space.objects if kind == suggested)
    size = space.min_sizes_nm3[trial.suggest_int("min_size", 0, len(space.min_sizes_nm3) - 1)]
    distance = 0.0
    if objects == "watershed":
        distance = space.min_distances_nm[trial.suggest_int("min_distance", 0, len(space.min_distances_nm) - 1)]
    return space.route(source, threshold, objects, distance, size)


@dataclass(frozen=True)
class Coupled:
    """Units that are decided together: the recipe's own routes, which may change, and the thresholds each may have.

    ``overall`` is the score of all their classes.
    """

    bases: Mapping[TuningUnit, Route]
    free: Sequence[TuningUnit]
    allows: Mapping[TuningUnit, Callable[[float], bool]]
    evaluator: FoldEvaluator
    overall: Callable[[Mapping[str, Sequence[Tally]]], float]

    def worth(self, routes: Mapping[TuningUnit, Route], *, together: bool) -> dict[str, Tallies]:
        """By class what the routes are worth in each fold, decided together or alone."""
        by_crop = {(crop, unit.name): route for unit, route in routes.items() for crop in unit.crops}
        return self.evaluator.joint(by_crop, together=together)


def tune_joint(
    coupled: Coupled, routes: Mapping[TuningUnit, Route], effort: Effort, watch: Watch
) -> dict[TuningUnit, Route]:
    """The routes after rounds in which each unit in turn takes what is best beside the others, until none changes.

    A unit that is free may take back its recipe's route, move its threshold where that is allowed, or weigh more or
    less in the joint decision; as everywhere only what gains on folds that did not choose it.
    """
    routes = dict(routes)
    for turn in range(ROUNDS):
        changed = False
        for unit in coupled.free:
            if effort.over:
                break
            worth = {}
            for option in _options(routes[unit], coupled.bases[unit], coupled.allows[unit]):
                worth[option] = coupled.worth({**routes, unit: option}, together=True)
                now = coupled.overall(worth[routes[unit]])
                watch(f"together, round {turn + 1}: {unit.label}, {now:.4f} overall")
            taken = _taken(routes[unit], worth, coupled.overall)
            changed |= taken != routes[unit]
            routes[unit] = taken
        if not changed:
            break
    return routes


def _options(route: Route, base: Route, allows: Callable[[float], bool]) -> list[Route]:
    nudged = [replace(route, threshold=round(route.threshold + by, 4)) for by in NUDGES]
    nudged = [r for r in nudged if allows(r.threshold)]
    weighed = [replace(route, weight=weight) for weight in WEIGHTS] if route.weight != 0 else []
    return list(dict.fromkeys([route, base, *(r for r in nudged if 0 < r.threshold < 1), *weighed]))


def _taken(
    current: Route,
    worth: Mapping[Route, Mapping[str, Tallies]],
    overall: Callable[[Mapping[str, Sequence[Tally]]], float],
) -> Route:
    """The option that is best on all folds, if what each fold's others choose gains there; else the current."""

    def on(route: Route, folds: Sequence[int]) -> float:
        return overall({name: [tallies[k] for k in folds] for name, tallies in worth[route].items()})

    def best(folds: Sequence[int]) -> Route:
        return max(worth, key=lambda route: (on(route, folds), route == current))

    judged: dict[str, list[Tally]] = {}
    for fold in range(FOLDS):
        chosen = best([k for k in range(FOLDS) if k != fold])
        for name, tallies in worth[chosen].items():
            judged.setdefault(name, []).append(tallies[fold])
    gains = overall(judged) >= on(current, range(FOLDS)) + MARGIN
    return best(range(FOLDS)) if gains else current
