"""Recipes: what they mean for each class and crop."""

import pytest

from ensemble.plan.recipe import EmptySource, MixedSource, NamedSource, OfClasses
from ensemble.support.errors import RecipeError
from tests.support.final_recipe import FINAL, target


def test_a_route_is_the_class_over_the_defaults(load) -> None:
    final = load(FINAL)
    mito = final.route("mito", target("557"))
    assert mito.source == MixedSource("mean", ((NamedSource("mito_l"), 3.0), (NamedSource("multi_m"), 1.0)))
    assert mito.threshold == 0.46
    assert [step.method.name for step in mito.steps] == ["watershed", "drop_small"]
    assert final.route("ecs", target("557")).source == NamedSource("multi_m")
    assert final.route("golgi", target("557")).source == EmptySource()
    assert final.route("nuc", target("557")).weight == "hard"


def test_a_class_made_of_others_has_no_evidence_of_its_own(load) -> None:
    route = load(FINAL).route("er_mem_all", target("557"))
    assert route.source == OfClasses("union", ("er_mem", "eres_mem", "ne_mem"))
    assert route.weight == 0


@pytest.mark.parametrize(
    ("crop", "source", "threshold"),
    [
        ("557", "mean", 0.46),  # 2 nm, ctl
        ("982", "multi_m", 0.46),  # 16 nm: the first entry, though the dataset fits neither
        ("980", "multi_m", 0.46),  # 13.92 x 16 x 16 nm: the largest axis counts
        ("558", "mean", 0.3),  # mus-kidney at 4 nm
    ],
)
def test_the_first_condition_that_holds_wins_and_replaces_only_its_keys(load, crop, source, threshold) -> None:
    route = load(FINAL).route("mito", target(crop))
    assert getattr(route.source, "how", getattr(route.source, "name", None)) == source
    assert route.threshold == threshold
    assert len(route.steps) == 2


def test_a_class_without_a_route_is_named(load) -> None:
    bare = load("name: bare\nsources: {m: {model: 'models:/m@a'}}\nclasses: {mito: {source: m}}\n")
    with pytest.raises(RecipeError, match=r"class nuc is scored in crop 557 but has no route"):
        bare.route("nuc", target("557"))
