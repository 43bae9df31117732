"""Which of the routes tried is kept: the one that gains on folds that did not choose it, else the simpler."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ensemble.plan import Route
from ensemble.scoring import Tally
from ensemble.tune.folds import FOLDS, Tallies

MARGIN = 0.002
"""A change must gain so much on held-out folds; routes nearer than that are taken for equally good."""

Score = Callable[[Sequence[Tally]], float]
Complexity = Callable[[Route], tuple[int, ...]]


@dataclass(frozen=True)
class Tried:
    """Routes with what each is worth by fold: ``by_fold[k]`` were found without fold k, ``all`` with every fold."""

    all: Mapping[Route, Tallies]
    by_fold: Sequence[Mapping[Route, Tallies]]


@dataclass(frozen=True)
class Chosen:
    """The route that is kept; ``kept_as_it_is``: because nothing may be, or can be, chosen.

    ``before`` and ``after``: scores on all folds, of the recipe's route and of this; ``held_out``: on each fold, of
    what was chosen without it, None where that was not judged alone. ``next_best`` is the runner-up with its score on
    all folds.
    """

    route: Route
    before: float
    after: float
    held_out: float | None
    changed: bool
    next_best: tuple[Route, float] | None = None
    why: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict)
    kept_as_it_is: bool = False

    def taken_back(self, base: Route) -> "Chosen":
        """The recipe's route after all."""
        why = "the official score of whole crops does not confirm the change" if self.changed else self.why
        kept = replace(self, route=base, changed=False, why=why, after=self.before, held_out=self.before)
        return replace(kept, next_best=None)


def choose(base: Route, tried: Tried, score: Score, complexity: Complexity) -> Chosen:
    """The simplest family of routes within a margin of the best, judged by folds that did not choose in it."""
    current = score(tried.all[base])
    families = sorted({complexity(route) for route in tried.all})
    held: dict[tuple[int, ...], float] = {}
    for family in families:
        value = _held_out(family, tried, score, complexity)
        if value is not None:
            held[family] = value
    best = max(held.values(), default=current)
    simplest = next(((f, v) for f, v in held.items() if v >= best - MARGIN), None)
    route, value, why = base, current, "nothing gains where it did not choose"
    if simplest is not None:
        family, reached = simplest
        gains = reached >= current + MARGIN
        better = _best(tried.all, family, range(FOLDS), score, complexity)
        if better is not None and (gains or (family < complexity(base) and reached >= current)):
            route, value = better, reached
            why = "gains where it did not choose" if gains else "as good, and simpler"
    after = score(tried.all[route])
    others = sorted((r for r in tried.all if r != route), key=lambda r: (-score(tried.all[r]), complexity(r)))
    runner_up = (others[0], score(tried.all[others[0]])) if others else None
    return Chosen(route, current, after, value, route != base, runner_up, why)


def _held_out(family: tuple[int, ...], tried: Tried, score: Score, complexity: Complexity) -> float | None:
    """The score of what a family's best on the other folds is worth on each fold, pooled; None where it is empty."""
    judged = []
    for fold, routes in enumerate(tried.by_fold):
        others = [k for k in range(FOLDS) if k != fold]
        route = _best(routes, family, others, score, complexity)
        if route is None:
            return None
        judged.append(routes[route][fold])
    return score(judged)


def _best(
    routes: Mapping[Route, Tallies],
    family: tuple[int, ...],
    folds: Sequence[int],
    score: Score,
    complexity: Complexity,
) -> Route | None:
    """The best route of at most the family's complexity in each respect; of equals the simplest."""
    inside = [r for r in routes if all(a <= b for a, b in zip(complexity(r), family, strict=True))]
    ranked = ((score([routes[r][k] for k in folds]), r) for r in inside)
    best = max(ranked, key=lambda pair: (pair[0], [-c for c in complexity(pair[1])]), default=None)
    return None if best is None else best[1]
