"""A job on one device or several, whole or in parts: the same bytes."""

from dataclasses import dataclass
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch

from ensemble.core.box import Box
from ensemble.core.manifest import Target
from ensemble.engine.here import Here
from ensemble.engine.work import done
from ensemble.plan.budget import Budget
from ensemble.plan.network_use import plain_use
from ensemble.predict.job_work import JobPlace, JobWork, PassCount
from ensemble.predict.part_run import sit_down
from ensemble.predict.prediction_store import open_prediction
from ensemble.predict.runner import Runner
from ensemble.predict.tissues import tissue_of
from ensemble.support.errors import EnsembleError
from ensemble.support.progress import QuietProgress
from tests.support.inference import CLASSES, a_volume, card, job, tiny_network

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cutting(Budget):
    """As if a GPU were lent that needs so many parts along y and x."""

    so_many: tuple[int, int] = (1, 1)

    def cut(self, job) -> tuple[int, int]:
        return self.so_many


class Heard(QuietProgress):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def at(self, done: float, what: str = "") -> None:
        self.told.append(done)


def run(folder, one, em, devices: int, slabs: int, cut=(1, 1), network=None, progress=None) -> np.ndarray:
    """The stored array, by a network in place of the model's."""
    budget = Cutting(4 << 30, 2, so_many=cut)
    count = PassCount(progress or QuietProgress(), 0)
    place = JobPlace(
        tissue_of(em, one), folder, "key-all", folder, plain_use(one, "32", "cpu"), "cpu", 1, folder / "scratch"
    )
    work = JobWork(one, place, budget, slabs, count)
    hear = lambda task, news: work.hear(task, news)  # noqa: E731
    with (
        patch("ensemble.predict.part_run.load_network", lambda card, weights: network or tiny_network()),
        Here(devices=[CPU] * devices, sit_down=sit_down, hear=hear) as engine,
    ):
        list(done(engine, [work.work()]))
    assert count.done == one.forward_passes
    assert work.computing_s > 0
    assert not list(folder.glob("*.section"))
    stored = open_prediction(folder, "key-all", one)
    assert stored.complete
    return stored.array[:]


@pytest.fixture
def one(tmp_path):
    _, grid, em = a_volume(tmp_path, (90, 150, 40))
    return job(tmp_path, Target("1", "d", grid, CLASSES), em, card()), em


@pytest.mark.slow
def test_parts_of_a_crop_over_which_patches_are_spread_are_the_bytes_of_the_whole(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (90, 180, 160))
    inner = Target("1", "d", grid.sub(Box((7, 12, 4), (80, 170, 150))), CLASSES)
    spread = job(tmp_path, inner, em, card())
    assert len({b - a for a, b in pairwise(spread.starts[1])}) > 1
    alone = run(tmp_path / "alone", spread, em, 1, 1)
    assert np.array_equal(run(tmp_path / "parts", spread, em, 2, 3, (2, 2)), alone)
    assert alone.any()


@pytest.mark.parametrize(("devices", "slabs", "cut"), [(2, 1, (1, 1)), (2, 3, (1, 1)), (1, 1, (2, 1)), (3, 2, (2, 1))])
def test_bytes_do_not_depend_on_devices_slabs_and_cuts(tmp_path, one, devices, slabs, cut) -> None:
    alone = run(tmp_path / "alone", *one, 1, 1)
    heard = Heard()
    assert np.array_equal(run(tmp_path / "parts", *one, devices, slabs, cut, progress=heard), alone)
    assert alone.any()
    assert heard.told == sorted(heard.told)


class Narrow(torch.nn.Module):
    """A device without memory for more than some patches at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.network, self.most, self.seen = tiny_network(), most, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.network(x)


def test_without_memory_for_a_pass_it_goes_on_with_half_as_many_patches_and_says_so(tmp_path, one, monkeypatch) -> None:
    monkeypatch.setattr(Runner, "batch_size", lambda self: 3)
    narrow, heard = Narrow(1), Heard()
    got = run(tmp_path / "narrow", *one, 1, 1, network=narrow, progress=heard)
    monkeypatch.setattr(Runner, "batch_size", lambda self: 1)
    assert np.array_equal(got, run(tmp_path / "alone", *one, 1, 1))
    assert heard.said == ["cpu: no memory for 3 patches of m a pass; going on with 1, which may change last bits"]
    assert narrow.seen[0] == 3
    assert set(narrow.seen[1:]) == {1}


def test_without_memory_for_one_patch_it_ends_in_one_line(tmp_path, one) -> None:
    with pytest.raises(
        EnsembleError, match="cpu: no memory for a patch of m; lend less of it to sums with --gpu-memory"
    ):
        run(tmp_path / "none", *one, 1, 1, network=Narrow(0))
