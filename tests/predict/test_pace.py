"""A patch of each network is timed once, and never again on this machine."""

import time
from pathlib import Path

import torch

from ensemble.plan.request import Request, prepare
from ensemble.predict.pace import pass_seconds, time_networks
from ensemble.predict.runner import Runner
from ensemble.support.progress import QuietProgress
from registry.store import Registry


class Slow(torch.nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.passes = seconds, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        time.sleep(self.seconds)
        return x.repeat(1, 3, 1, 1, 1)


def test_networks_that_were_never_timed_are_and_the_plan_knows_its_hours(place):
    request, registry = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu"), Registry()
    before = prepare(request, registry)
    registry.paces.path.unlink(missing_ok=True)
    time_networks(request, before, registry, QuietProgress())
    prepared = prepare(request, registry)
    assert prepared.hours.untimed == []
    assert prepared.hours.predicting_s > 0
    kept = registry.paces.path.read_bytes()
    time_networks(request, prepared, registry, QuietProgress())
    assert registry.paces.path.read_bytes() == kept


def test_a_pass_takes_as_long_as_the_network_sleeps(place):
    job = prepare(Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu"), Registry()).plan.jobs[0]
    network = Slow(0.3)
    runner = Runner.of(network, job, torch.device("cpu"), "32")
    seconds = pass_seconds(runner, job)
    assert seconds >= 0.3 / runner.batch_size()
    assert network.passes >= 2  # the first of which does not count
