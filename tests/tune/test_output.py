"""The tuned recipe means what was chosen."""

import json
from pathlib import Path

import pytest

from ensemble.core import manifest
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.describe import describe_route
from ensemble.plan.recipe import NamedSource, Route
from ensemble.tune.folds import TuningUnit
from ensemble.tune.output import TuningResult, comments, results_as_json
from ensemble.tune.selection import Chosen
from tests.support.small_tuning import RECIPE, tuned


def _routes(path: str) -> dict:
    loaded, (target,) = recipe_file.load_recipe(path), manifest.load_manifest(Path("manifest.csv"))
    return {name: describe_route(loaded.route(name, target)) for name in target.classes}


@pytest.mark.parametrize(
    "text",
    [
        # what a class says against the defaults must stay said
        "defaults: {source: a, weight: 2, resampling: nearest}\n"
        "classes: {er: {source: a, weight: 1, resampling: linear}}\ntune: {nuc: fixed}\n",
        "defaults: {source: a}\nclasses: {er: {source: a, weight: 2, when: [{crop: '5', source: a, weight: 1}]}}\n"
        "tune: {mito: fixed, nuc: fixed}\n",
        "defaults: {source: a}\n"
        "classes: {mito: {source: a, threshold: 0.3, postprocess: [{hysteresis: {high: 0.9}}]}}\ntune: {nuc: fixed}\n",
        "defaults: {source: a}\nclasses: {er: {source: {mean: [a, a, b]}}}\ntune: {er: fixed, mito: fixed}\n",
        "defaults: {source: a}\nclasses: {nuc: {source: {union: [mito, er]}}}\n",
        "defaults: {source: a}\nempty: [nuc]\n",
    ],
    ids=["defaults", "when", "hysteresis", "twice", "union", "empty"],
)
def test_the_recipe_that_is_written_means_what_was_chosen(place, text):
    Path("mine.yaml").write_text(RECIPE.partition("defaults")[0] + text + "consistency: none\n")
    found = tuned("--trials", "2")
    written = _routes("tuned.yaml")
    for one in found["classes"].values():
        assert written[one["class"]] == one["route"]


def test_a_choice_is_told_above_its_class_and_in_json():
    route, other = (
        Route(NamedSource("a"), 0.25, 1.0, "linear", (), "r"),
        Route(NamedSource("b"), 0.5, 1.0, "linear", (), "r"),
    )
    chosen = Chosen(route, 0.5, 0.75, 0.7, True, (other, 0.6), "gains on folds that did not choose it")
    result = TuningResult(TuningUnit("er", None, ("5",)), chosen, 0.4, 0.6, 0.1)
    assert comments(result) == [
        "er: official score of the class 0.4000 -> 0.6000; alone by folds 0.5000 -> 0.7500, held out 0.7000;"
        " changed: gains on folds that did not choose it",
        "next best: 0.6000 with b, threshold 0.5",
    ]
    said = json.loads(results_as_json([result], {"before": 0.4, "after": 0.6}, {"crop5": ["a"]}))
    assert said["overall"] == {"before": 0.4, "after": 0.6}
    assert said["trained_on"] == {"crop5": ["a"]}
    assert said["classes"]["er"]["route"]["threshold"] == 0.25
    assert said["classes"]["er"]["next_best"]["route"]["source"] == "b"
