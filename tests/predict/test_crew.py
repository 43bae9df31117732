"""Devices share work: each keeps its network, and none goes on where another failed."""

import threading

import pytest
import torch

from ensemble.core.manifest import Target
from ensemble.plan.network_use import plain_use
from ensemble.predict.crew import Crew
from ensemble.predict.runner import Runner
from tests.support.inference import CLASSES, a_volume, card, job, tiny_network

CPU = torch.device("cpu")


@pytest.fixture
def two_jobs(tmp_path):
    _, grid, em = a_volume(tmp_path, (30, 30, 40))
    return [job(tmp_path, Target(name, "d", grid, CLASSES), em, card()) for name in ("1", "2")]


def crew(count: int, loaded: list) -> Crew:
    def load(one, device):
        loaded.append(threading.get_ident())
        return Runner.of(tiny_network(), one, device, plain_use(one, "32", "cpu"))

    return Crew([CPU] * count, 1, load)


def test_one_device_works_where_it_is_asked_and_loads_a_network_once(two_jobs) -> None:
    loaded, ran = [], []
    with crew(1, loaded) as one:
        for each in two_jobs:
            one.submit(each, lambda _: ran.append(threading.get_ident())).result()
    assert loaded == [threading.get_ident()]
    assert ran == 2 * loaded


def test_several_devices_work_at_once_each_with_a_network_of_its_own(two_jobs) -> None:
    loaded, together = [], threading.Barrier(2, timeout=60)
    with crew(2, loaded) as both:
        results = [both.submit(two_jobs[0], lambda _: together.wait() and None) for _ in range(2)]
        for result in results:
            result.result()
    assert len(set(loaded)) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_what_fails_is_told_and_the_others_stop(two_jobs, count: int) -> None:
    begun, stopped = threading.Event(), []

    def fails(_: Runner) -> None:
        begun.wait(60 if count == 2 else 0)
        raise ValueError("broken")

    all_of_them = crew(count, [])

    def goes_on(_: Runner) -> None:
        begun.set()
        while not stopped:
            try:
                all_of_them.check_goes_on()
            except InterruptedError as error:
                stopped.append(error)

    def work() -> None:
        with all_of_them:
            if count == 2:
                all_of_them.submit(two_jobs[0], goes_on)
            all_of_them.submit(two_jobs[0], fails).result()

    with pytest.raises(ValueError, match="broken"):
        work()
    assert len(stopped) == count - 1
