"""Tuning finds the routes and thresholds that are known to be best, by gains that held-out truth confirms."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage
from volumes import write_array, write_em

from ensemble.build.building import build
from ensemble.cli import main
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan import recipe_reader as recipe_file
from ensemble.plan.describe import describe_route, source_in_words
from ensemble.plan.request import Request
from ensemble.scoring.evaluation import score
from ensemble.scoring.pooling import Tally
from ensemble.scoring.semantic import threshold_counts
from ensemble.tune import folds as ground
from ensemble.tune import selection as select
from ensemble.tune import space
from ensemble.tune.folds import TuningUnit, blocks_of
from registry.store import Registry

GRID = Grid((32, 48, 160), (8, 8, 8), (4, 4, 4))
CLASSES = ("mito", "nuc", "er")
RECIPE = """\
name: mine
sources:
  a: {predictions: "{root}/a/{crop}/{class}"}
  b: {predictions: "{root}/b/{crop}/{class}"}
defaults: {source: a, threshold: 0.5}
consistency: none
"""
TUNE = ["tune", "mine.yaml", "--manifest", "manifest.csv", "--truth", "truth.zarr", "--out", "tuned.yaml"]


def balls(seed: int, radius: float, count: int) -> np.ndarray:
    """Labels of balls, apart from each other, all over the crop."""
    chance, labels = np.random.default_rng(seed), np.zeros(GRID.shape, np.uint16)
    z, y, x = np.indices(GRID.shape, sparse=True)
    for _ in range(10 * count):
        centre = [chance.uniform(radius, n - radius) for n in GRID.shape]
        ball = sum((i - c) ** 2 for i, c in zip((z, y, x), centre, strict=True)) <= (radius + 2) ** 2
        if labels.max() < count and not labels[ball].any():
            inner = sum((i - c) ** 2 for i, c in zip((z, y, x), centre, strict=True)) <= radius**2
            labels[inner] = labels.max() + 1
    return labels


def predicted(truth: np.ndarray, seed: int, noise: float, offset: float = 0.0) -> np.ndarray:
    """The probability of a network that is sure to ``noise``, its logits off by ``offset``."""
    logit = np.where(truth > 0, 4.0, -4.0) + offset
    blurred = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(truth.shape), 1.0)
    return (1 / (1 + np.exp(-(logit + noise * blurred / blurred.std())))).astype(np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Source a is better at mito, b at nuc; the er of a is off by a logit of 2, that of b is noise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_em(tmp_path / "data", "d", [(np.full(GRID.shape, 100, np.uint8), GRID)], chunk=64)
    manifest.write_manifest(tmp_path / "manifest.csv", [Target("5", "d", GRID, CLASSES)])
    truth = {"mito": balls(1, 5, 14), "nuc": balls(2, 6, 10), "er": (balls(3, 4, 20) > 0).astype(np.uint8)}
    for name, labels in truth.items():
        write_array(tmp_path / "truth.zarr" / "crop5" / name, labels, GRID, chunk=64)
    made = {
        "a": {"mito": (1, 1.0, 0), "nuc": (2, 4.5, 0), "er": (3, 2.0, 2.0)},
        "b": {"mito": (4, 4.5, 0), "nuc": (5, 1.0, 0), "er": (6, 9.0, 0)},
    }
    for source, classes in made.items():
        for name, (seed, noise, offset) in classes.items():
            p = predicted(truth[name], seed, noise, offset)
            write_array(tmp_path / "data" / source / "crop5" / name, p, GRID, chunk=64)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def tuned(*options: str) -> dict:
    assert main([*TUNE, "--trials", "8", *options]) == 0
    return json.loads(Path("tuned.json").read_text())


def test_the_known_best_routes_and_thresholds_are_found(place, capsys):
    found = tuned()
    assert found["classes"]["mito"]["route"]["source"] == "a"
    assert found["classes"]["nuc"]["route"]["source"] == "b"
    er = found["classes"]["er"]["route"]
    assert er["source"] == "a"
    truth, p = (zarr.open_array(f)[:] for f in ("truth.zarr/crop5/er", "data/a/crop5/er"))
    best = max(_iou(p > t, truth > 0) for t in np.linspace(0.5, 0.995, 100))
    assert er["threshold"] > 0.7  # the offset is undone
    assert _iou(p > er["threshold"], truth > 0) == pytest.approx(best, abs=0.005)
    assert found["overall"]["after"] > found["overall"]["before"] + 0.1
    said = capsys.readouterr().out
    assert "overall score" in said
    text = Path("tuned.yaml").read_text()
    assert "# er: official score of the class 0." in text
    assert "next best:" in text
    assert Path("tuned_curves/er.png").stat().st_size > 5000
    _check_runs()


def _iou(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


def _check_runs() -> None:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("ensemble tunings")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == ["er", "mito", "nuc"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        *("tuned.yaml", "tuned.json", "tuned_curves"),
    }


def test_building_the_tuned_recipe_gives_exactly_what_was_promised(place):
    promised = tuned()
    request = Request("tuned.yaml", place / "again", place / "manifest.csv", str(place / "data"))
    build(request, Registry())
    again = score(request.zip, place / "truth.zarr", manifest.load_manifest(place / "manifest.csv"))
    assert again.overall.score == promised["overall"]["after"]
    for name, one in promised["classes"].items():
        assert again.by_class[name] == one["official_after"]


def test_what_was_evaluated_is_not_evaluated_again(place, monkeypatch):
    first = tuned()
    kept = Path("build", "mine-tune", "work", "evaluated")
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[: len(lines) // 2]) + '\n["torn')  # killed half-way, in the middle of a line
    monkeypatch.setattr(ground.FoldEvaluator, "_alone", _counted(ground.FoldEvaluator._alone))
    assert tuned() == first
    assert 0 < _counted.calls <= len(lines) - len(lines) // 2
    _counted.calls = 0
    assert tuned() == first
    assert _counted.calls == 0


def _counted(function):
    _counted.calls = 0

    def call(*arguments):
        _counted.calls += 1
        return function(*arguments)

    return call


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


def _routes(path: str) -> dict:
    loaded, (target,) = recipe_file.load_recipe(path), manifest.load_manifest(Path("manifest.csv"))
    return {name: describe_route(loaded.route(name, target)) for name in target.classes}


@pytest.mark.parametrize(
    "text",
    [
        # what a class says against the defaults must stay said
        "defaults: {source: a, weight: 2, resampling: nearest}\n"
        "classes: {er: {source: a, weight: 1, resampling: linear}}\n",
        "defaults: {source: a}\nclasses: {er: {source: a, weight: 2, when: [{crop: '5', source: a, weight: 1}]}}\n",
        "defaults: {source: a}\n"
        "classes: {mito: {source: a, threshold: 0.3, postprocess: [{hysteresis: {high: 0.9}}]}}\n",
        "defaults: {source: a}\nclasses: {er: {source: {mean: [a, a, b]}}}\ntune: {er: fixed}\n",
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


def test_labels_are_a_source_like_any_other(place):
    sources = RECIPE.partition("defaults")[0] + '  lab: {labels: "{root}/../truth.zarr/{crop}/{class}"}\n'
    Path("mine.yaml").write_text(sources + "defaults: {source: a}\nclasses: {er: {source: lab}}\n")
    assert tuned("--trials", "2")["classes"]["er"]["official_after"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "mine.yaml"], "would replace the recipe"),
        (["--out", "tuned.json"], "let its name end in .yaml"),
        (["--truth", "none.zarr"], "holds truth for no array of the manifest"),
        (["--trials", "0"], "at least one is needed"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_predicted(place, capsys, options, message):
    before = Path("mine.yaml").read_text()
    assert main([*TUNE, *options]) == 2
    assert message in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == before
    assert not Path("tuned.yaml").exists()


def test_a_range_the_wrong_way_round_is_refused(place, capsys):
    Path("mine.yaml").write_text(RECIPE + "tune: {er: {threshold: [0.95, 0.6]}}\n")
    assert main(TUNE) == 2
    assert "mine.yaml:7: tune.er.threshold: [0.95, 0.6] is no range" in capsys.readouterr().err


def test_too_little_truth_changes_nothing_and_says_so(place):
    labels = np.zeros(GRID.shape, np.uint16)
    labels[8:16, 8:16, 8:16] = 1
    write_array(place / "truth.zarr" / "crop5" / "mito", labels, GRID, chunk=64)
    found = tuned()["classes"]["mito"]
    assert found["why"] == "too little truth: 0 objects in a fold, 2 are needed"
    assert not found["changed"]


def test_classes_decided_together_are_tuned_together(place):
    """The er of a is too sure of itself; decided together with nuc it takes what is nuc's until its route is mended."""
    Path("mine.yaml").write_text(RECIPE.replace("consistency: none", "consistency: joint"))
    found = tuned()
    assert found["overall"]["after"] > found["overall"]["before"] + 0.1
    assert recipe_file.load_recipe("tuned.yaml").consistency in ("joint", "none")


def test_time_that_is_up_ends_the_search_with_what_was_found(place):
    began = time.monotonic()
    found = tuned("--minutes", "0")
    assert found["classes"]["er"]["route"]["threshold"] > 0.7  # a curve takes no trials
    assert time.monotonic() - began < 120


# -- parts


def test_the_curve_counts_what_thresholding_counts():
    chance = np.random.default_rng(0)
    p, truth = chance.random((5, 6, 7), dtype=np.float32), chance.random((5, 6, 7)) < 0.4
    thresholds = np.float32([0.1, 0.25, 0.5, float(p[0, 0, 0]), 0.9])
    thresholds.sort()
    for row, t in zip(threshold_counts(p, truth, thresholds), thresholds, strict=True):
        found = p > t
        assert row.tolist() == [(found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()]


def test_folds_do_not_touch():
    (first, second) = blocks_of({"1": (20, 30, 100)})["1"]
    assert first.box == (slice(0, 20), slice(0, 30), slice(0, 44))
    assert second.box == (slice(0, 20), slice(0, 30), slice(56, 100))
    whole = blocks_of({str(i): (4, 4, 4) for i in range(5)})
    assert [blocks[0].fold for blocks in whole.values()] == [0, 1, 0, 1, 0]
    assert all(len(blocks) == 1 for blocks in whole.values())


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


def test_a_class_in_one_crop_is_a_unit():
    assert TuningUnit("mito", None, ("5",)).label == "mito"
    assert TuningUnit("mito", 0, ("5",)).label == "mito (when 1)"
