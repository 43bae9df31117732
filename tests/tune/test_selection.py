"""Of the routes that were tried, the one whose gain holds on other folds, and the simplest of equals."""

import pytest

from ensemble.plan.describe import source_in_words
from ensemble.scoring.pooling import Tally
from ensemble.tune import folds as ground
from ensemble.tune import selection as select
from ensemble.tune import space


def _route(source: str, threshold: float = 0.5):
    from ensemble.plan.recipe import NamedSource, Route

    return Route(NamedSource(source), threshold, 1.0, "linear", (), "test")


def _tried(scores: dict) -> select.Tried:
    """Routes with a percentage right in each of two folds of a hundred voxels."""
    found = {route: [Tally(a, 0, 100 - a), Tally(b, 0, 100 - b)] for route, (a, b) in scores.items()}
    return select.Tried(found, [found, found])


def _choose(base, scores):
    tallies = lambda found: ground.score_of("er", found)  # noqa: E731
    return select.choose(base, _tried(scores), tallies, lambda r: space.complexity(r, frozenset()))


def test_what_gains_only_where_it_was_chosen_is_not_kept():
    base, lucky, unlucky = _route("a"), _route("a", 0.3), _route("a", 0.7)
    kept = _choose(base, {base: (60, 60), lucky: (90, 20), unlucky: (20, 90)})
    assert kept.route == base
    assert not kept.changed


def test_what_gains_everywhere_is_kept_and_the_runner_up_is_told():
    base, better, best = _route("a"), _route("a", 0.3), _route("a", 0.4)
    kept = _choose(base, {base: (60, 60), better: (70, 70), best: (80, 78)})
    assert (kept.route, kept.next_best[0]) == (best, better)
    assert (kept.before, kept.after, kept.held_out) == pytest.approx((0.6, 0.79, 0.79))


def test_of_two_that_are_as_good_the_simpler_is_kept():
    from dataclasses import replace

    from ensemble.plan.recipe import MixedSource, NamedSource

    single = _route("b")
    mixed = replace(single, source=MixedSource("mean", ((NamedSource("a"), 1.0), (NamedSource("b"), 1.0))))
    kept = _choose(mixed, {single: (70, 70), mixed: (70, 70)})
    assert kept.route == single
    assert kept.why == "as good, and simpler"
    assert source_in_words(mixed.source) == "mean of 1 a + 1 b"
