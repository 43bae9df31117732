"""What is tuned: each class for each entry that routes crops with truth."""

from pathlib import Path

import pytest

from ensemble.core import load_manifest
from ensemble.plan import load_recipe
from ensemble.support import EnsembleError
from ensemble.tune.candidates import Candidates
from ensemble.tune.folds import FoldEvaluator
from ensemble.tune.units import most_evaluations, most_voxels, units_of
from registry import Registry
from tests.support.small_tuning import RECIPE, tuned


def units(recipe: str) -> dict:
    Path("mine.yaml").write_text(recipe)
    read, targets, truth = load_recipe("mine.yaml"), load_manifest(Path("manifest.csv")), Path("truth.zarr")
    candidates = Candidates.of(read, targets, truth, Registry(), registered=False, augment=False)
    return units_of(read, targets, candidates, truth, "data")


def test_every_class_with_truth_and_a_route_is_tuned(place) -> None:
    assert [unit.label for unit in units(RECIPE)] == ["nuc", "mito", "er"]  # as the manifest has them
    assert [unit.label for unit in units(RECIPE + "empty: [nuc]\n")] == ["mito", "er"]
    when = "classes: {er: {when: [{crop: '5', source: b}]}}\n"
    assert [unit.label for unit in units(RECIPE + when)] == ["nuc", "mito", "er (when 1)"]
    for name in ("mito", "er"):
        (place / "truth.zarr/crop5" / name).rename(place / f"{name}-elsewhere")
    assert [unit.label for unit in units(RECIPE)] == ["nuc"]
    with pytest.raises(EnsembleError, match="holds truth for no class that the recipe routes"):
        units(RECIPE + "empty: [nuc]\n")


def test_how_often_at_most_a_class_is_evaluated_is_known_before(place) -> None:
    """Two sources and three mixes: a curve each; or trials of sources and of mixes, on all folds and all but one."""
    by_name = {unit.name: most_evaluations(space, 8) for unit, space in units(RECIPE).items()}
    assert by_name == {"mito": 1 + 5 + 3 * 2 * (8 + 6), "nuc": 1 + 5 + 3 * 2 * (8 + 6), "er": 5 + 1}


def test_no_tuning_evaluates_more_than_was_told(place, monkeypatch) -> None:
    counted = []
    assemble = FoldEvaluator._assembled

    def counting(self, plan, group, **options):
        counted.append(len(group) * plan.target.grid.size)
        return assemble(self, plan, group, **options)

    monkeypatch.setattr(FoldEvaluator, "_assembled", counting)
    text = RECIPE.replace("consistency: none", "consistency: joint\ntune: {mito: fixed, nuc: fixed}")
    told = most_voxels(units(text), load_manifest(Path("manifest.csv")), 1, joint=True)
    tuned("--trials", "1", "--no-tta")
    assert 0 < sum(counted) <= told
