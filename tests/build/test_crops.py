"""Crops are assembled at once and in any order: the same bytes as one after the other."""

import pickle
import random

import pytest

from ensemble.build.building import build
from ensemble.build.crops import CROPS_AT_ONCE
from ensemble.decode import assembling
from ensemble.engine.task import Finished, Task
from ensemble.plan.request import Request
from tests.support.built import OUT, begun_anew
from tests.support.small_build import BUILD


class Shuffled:
    """An engine that has many tasks under way, and whichever ends first."""

    at_once = 9
    is_idle = False

    def __init__(self, seed: int) -> None:
        self.hear = lambda task, news: None
        self._random, self._sent, self.together = random.Random(seed), [], 0

    def submit(self, task: Task) -> None:
        self._sent.append((task, pickle.dumps(task)))
        deciding = [each for each, _ in self._sent if each.function == "ensemble.decode.pieces:decide_bands"]
        self.together = max(self.together, len({each.arguments[0].crop.plan.target.crop for each in deciding}))

    def forget(self) -> None:
        self._sent.clear()

    def finished(self) -> Finished:
        task, sent = self._sent.pop(self._random.randrange(len(self._sent)))
        return Finished(task, pickle.loads(sent).run())


@pytest.mark.usefixtures("built")
def test_in_any_order_crops_are_the_same(store, monkeypatch) -> None:
    assert BUILD[1:4] == ["small.yaml", "--manifest", "manifest.csv"]
    monkeypatch.setattr(assembling, "TASK_CLASS_VOXELS", 1)
    expected, engine = begun_anew(), Shuffled(4)
    build(Request("small.yaml", OUT, OUT.parents[1] / "manifest.csv", device="cpu"), store, engine=engine)
    assert (OUT / "submission.zip").read_bytes() == expected
    assert engine.together == min(2, CROPS_AT_ONCE)
