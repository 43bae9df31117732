"""Folds of truth: what was evaluated on them is kept, and they do not touch."""

import json
from pathlib import Path

from ensemble.core.box import Box
from ensemble.tune.folds import FoldEvaluator, TuningUnit, blocks_of
from tests.support.small_tuning import tuned


def test_what_was_evaluated_is_not_evaluated_again(tuned_place, monkeypatch):
    first = json.loads(Path("tuned.json").read_text())
    kept = Path("build", "mine-tune", "work", "evaluated")
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[: len(lines) // 2]) + '\n["torn')  # killed half-way, in the middle of a line
    monkeypatch.setattr(FoldEvaluator, "_alone", _counted(FoldEvaluator._alone))
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


def test_a_class_in_one_crop_is_a_unit():
    assert TuningUnit("mito", None, ("5",)).label == "mito"
    assert TuningUnit("mito", 0, ("5",)).label == "mito (when 1)"


def test_folds_do_not_touch():
    (first, second) = blocks_of({"1": (20, 30, 100)})["1"]
    assert first.box == Box((0, 0, 0), (20, 30, 44))
    assert second.box == Box((0, 0, 56), (20, 30, 100))
    whole = blocks_of({str(i): (4, 4, 4) for i in range(5)})
    assert [blocks[0].fold for blocks in whole.values()] == [0, 1, 0, 1, 0]
    assert all(len(blocks) == 1 for blocks in whole.values())
