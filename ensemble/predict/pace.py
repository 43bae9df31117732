"""How long a network takes for a patch on this machine."""

import time

import torch

from ensemble.plan import FORWARD_PASSES, Job, Prepared, Request, device_in_words, network_pace
from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.runner import Runner
from ensemble.support import Progress
from registry import Registry, load_network

ENOUGH_S = 1.0
MOST_RUNS = 20


def time_networks(request: Request, prepared: Prepared, registry: Registry, progress: Progress) -> None:
    """Each of the plan's networks that was never timed here runs over a few patches of noise; what it took is kept."""
    fix_threads(prepared.threads)
    place = device_in_words(request.device, prepared.threads)
    jobs = {network_pace(job, place, request.precision): job for job in prepared.plan.jobs}
    open_jobs = {what: job for what, job in jobs.items() if registry.paces.seconds(what) is None}
    progress.stage("time a patch of each network", len(open_jobs))
    for done, (what, job) in enumerate(open_jobs.items()):
        progress.at(done, job.source)
        model, device = prepared.models[job.source], find_device(request.device)
        network = load_network(model.card, registry.weights(model)).to(device)
        registry.paces.note(what, pass_seconds(Runner.of(network, job, device, request.precision), job))
    progress.at(len(open_jobs))


def pass_seconds(runner: Runner, job: Job) -> float:
    """Seconds of one forward pass over one patch, the first batch not counted."""
    patches = torch.rand(runner.batch_size(), *job.patch)
    runs, began = -1, time.perf_counter()
    while runs < MOST_RUNS and (runs < 1 or time.perf_counter() - began < ENOUGH_S):
        runner(patches).cpu()
        runs += 1
        if runs == 0:
            began = time.perf_counter()
    return (time.perf_counter() - began) / runs / len(patches) / FORWARD_PASSES[job.tta]
