"""A patch of each network is timed once, and never again on this machine."""

from pathlib import Path

from ensemble.plan.request import Request, prepare
from ensemble.predict.pace import expected_s, time_networks
from ensemble.support.progress import QuietProgress
from registry.store import Registry


def test_networks_that_were_never_timed_are_and_the_plan_knows_its_hours(place):
    request, registry = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu"), Registry()
    registry.paces.path.unlink(missing_ok=True)
    before = prepare(request, registry)
    assert before.hours.untimed == ["fine", "coarse"]
    time_networks(request, before, registry, QuietProgress())
    prepared = prepare(request, registry)
    assert prepared.hours.untimed == []
    kept = registry.paces.path.read_bytes()
    jobs = prepared.plan.jobs
    whole = expected_s(request, prepared, registry, jobs)
    assert whole == prepared.hours.predicting_s > 0
    assert sum(expected_s(request, prepared, registry, [job]) for job in jobs) == whole
    assert registry.paces.path.read_bytes() == kept  # nothing was timed again
