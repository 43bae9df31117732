"""How long networks take for their patches on this machine: timed once, kept beside the registry."""

from collections.abc import Sequence

from ensemble.plan import FORWARD_PASSES, Job, Prepared, Request, device_in_words, network_pace
from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.runner import Runner
from ensemble.support import Progress, QuietProgress
from registry import Registry, load_network


def time_networks(request: Request, prepared: Prepared, registry: Registry, progress: Progress) -> None:
    """Each of the plan's networks that was never timed here runs over a few patches; what a pass took is kept."""
    fix_threads(prepared.threads)
    untimed = {_pace(request, prepared, job): job for job in prepared.plan.jobs}
    untimed = {what: job for what, job in untimed.items() if registry.paces.seconds(what) is None}
    progress.stage("time a patch of each network", len(untimed))
    for done, (what, job) in enumerate(untimed.items()):
        progress.at(done, job.source)
        model, device = prepared.models[job.source], find_device(request.device)
        network = load_network(model.card, registry.weights(model)).to(device)
        runner = Runner.of(network, job, device, request.precision)
        registry.paces.note(what, runner.timed_patch_s() / FORWARD_PASSES[job.tta])
    progress.at(len(untimed))


def expected_s(request: Request, prepared: Prepared, registry: Registry, jobs: Sequence[Job]) -> float:
    """How long some of the plan's jobs take; networks that were never timed here are."""
    time_networks(request, prepared, registry, QuietProgress())
    paces = (registry.paces.seconds(_pace(request, prepared, job)) or 0 for job in jobs)
    return sum(job.forward_passes * pace for job, pace in zip(jobs, paces, strict=True))


def _pace(request: Request, prepared: Prepared, job: Job) -> str:
    return network_pace(job, device_in_words(request.device, prepared.threads), request.precision)
