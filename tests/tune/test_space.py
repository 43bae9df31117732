"""What a recipe lets tuning choose."""

from pathlib import Path

from ensemble.cli import main
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.recipe import MixedSource, ModelSource, NamedSource, Route
from ensemble.tune.space import CURVE, Narrowed, _step, complexity, space_of_class, twins
from tests.support.small_tuning import RECIPE, TUNE, tuned


def test_a_recipe_can_fix_and_narrow_what_is_searched(place, capsys):
    narrowed = "tune:\n  mito: fixed\n  nuc: {sources: [a], objects: [watershed], min_distance_nm: [40]}\n"
    Path("mine.yaml").write_text(RECIPE + narrowed + "  er: {threshold: 0.7}\n")
    found = tuned()["classes"]
    assert found["mito"]["why"] == "fixed"
    assert found["nuc"]["route"]["source"] == "a"
    assert found["er"]["route"]["threshold"] in (0.5, 0.7)
    for line, message in (
        ("  er: {treshold: 0.7}", "tune.er.treshold: unknown key; did you mean 'threshold'?"),
        ("  er: {sources: [c]}", "tune.er.sources[0]: unknown source 'c'"),
        ("  eer: fixed", "tune.eer: unknown class 'eer'; did you mean 'er'?"),
        ("  consistency: joint", "tune.consistency: can only be 'fixed'"),
    ):
        Path("mine.yaml").write_text(RECIPE + "tune:\n" + line + "\n")
        capsys.readouterr()
        assert main(TUNE) == 2
        assert message in capsys.readouterr().err
    assert recipe_file.load_recipe("tuned.yaml").name == "mine-tuned"


def test_a_range_the_wrong_way_round_is_refused(place, capsys):
    Path("mine.yaml").write_text(RECIPE + "tune: {er: {threshold: [0.95, 0.6]}}\n")
    assert main(TUNE) == 2
    assert "mine.yaml:7: tune.er.threshold: [0.95, 0.6] is no range" in capsys.readouterr().err


BASE = Route(
    NamedSource("a"),
    0.4,
    1.0,
    "linear",
    (_step("fill_holes"), _step("components"), _step("drop_small", min_size_nm3=9)),
    "r",
)


def test_every_part_of_a_route_can_be_exchanged_and_its_other_steps_stay():
    space = space_of_class("mito", BASE, ["a", "b"], frozenset(), 8.0, Narrowed())
    assert {s for s in space.sources if isinstance(s, NamedSource)} == {NamedSource("a"), NamedSource("b")}
    assert sum(isinstance(s, MixedSource) for s in space.sources) == 3  # 1:1, 3:1, 1:3
    assert {0.4, 0.5} < set(space.thresholds)
    assert space.min_distances_nm == (32, 64, 128, 256, 512)
    tried = space.route(NamedSource("b"), 0.3, "watershed", 64.0, 100.0)
    assert [s.method.name for s in tried.steps] == ["fill_holes", "watershed", "drop_small"]
    assert (tried.source, tried.threshold) == (NamedSource("b"), 0.3)
    assert [s.method.name for s in space.route(NamedSource("b"), 0.3, "components").steps] == [
        "fill_holes",
        "components",
    ]


def test_what_is_fixed_is_not_searched_and_a_semantic_class_is_a_curve():
    fixed = space_of_class("mito", BASE, ["a", "b"], frozenset(), 8.0, Narrowed(fixed=True))
    assert (fixed.sources, fixed.thresholds, fixed.objects) == ((NamedSource("a"),), (0.4,), ())
    plain = Route(NamedSource("a"), 0.4, 1.0, "linear", (), "r")
    er = space_of_class("er", plain, ["a"], frozenset(), 8.0, Narrowed())
    assert er.by_curve
    assert set(er.thresholds) == {*CURVE, 0.4}
    narrow = space_of_class("er", plain, ["a"], frozenset(), 8.0, Narrowed(threshold=(0.25, 0.5)))
    assert (min(narrow.thresholds), max(narrow.thresholds)) == (0.25, 0.5)


def test_fewer_models_are_simpler_than_anything_else():
    mixed = space_of_class("er", BASE, ["a", "b"], frozenset(), 8.0, Narrowed()).sources[-1]
    routes = [BASE, Route(NamedSource("a"), 0.5, 1.0, "linear", (_step("watershed", min_distance_nm=9),), "r")]
    routes.append(Route(mixed, 0.5, 1.0, "linear", (), "r"))
    assert [complexity(route, frozenset("b")) for route in routes] == [(1, 0, 0, 1), (1, 1, 0, 0), (2, 0, 1, 0)]


def test_each_model_has_a_twin_with_augmentation_or_without():
    sources = {"a": ModelSource("models:/a@x"), "b": ModelSource("models:/b@x", "mirror"), "a_mirrored": None}
    assert twins(sources, ["b"]) == {"b_plain": ("b", ModelSource("models:/b@x"))}
    assert twins(sources, ["a"]) == {}  # the name is taken
