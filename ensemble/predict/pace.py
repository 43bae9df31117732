"""How long networks take for their patches on this machine: timed once, kept beside the registry."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.plan import FORWARD_PASSES, Budget, Job, NetworkUse, Prepared, Request
from ensemble.predict.device import find_devices, fix_threads
from ensemble.predict.prediction_store import Section, open_prediction
from ensemble.predict.predictor import load_runner
from ensemble.predict.tissues import tissue_of
from ensemble.support import Progress
from registry import Registry

if TYPE_CHECKING:
    from ensemble.predict.runner import Runner

TIMED_S = 3.0
"""About how long each network is timed, if a patch does not take longer."""


def time_networks(
    request: Request,
    prepared: Prepared,
    registry: Registry,
    progress: Progress,
    jobs: Sequence[Job],
    uses: Mapping[str, NetworkUse],
) -> None:
    """Each network of the jobs that was never timed here predicts a part of one; what a pass took is kept.

    All that is done for a patch is timed: EM read, sums, planes written.
    """
    fix_threads(prepared.threads)
    pacing = prepared.pacing
    untimed: dict[str, Job] = {}
    for job in jobs:
        what = pacing.network(job)
        if pacing.paces.seconds(what) is None and (what not in untimed or job.patches > untimed[what].patches):
            untimed[what] = job
    progress.stage("time a part of each network's work", len(untimed))
    device, loading_s = find_devices(request.device)[0], 0.0
    for done, (what, job) in enumerate(untimed.items()):
        progress.at(done, job.source)
        began = time.monotonic()
        runner = load_runner(prepared, registry, job, device, uses[job.source])
        loading_s += time.monotonic() - began
        pacing.paces.keep(what, _pass_s(job, prepared, runner, request.budget))
    if loading_s:
        pacing.paces.keep(pacing.start, loading_s)
    progress.at(len(untimed))


def _pass_s(job: Job, prepared: Prepared, runner: "Runner", budget: Budget) -> float:
    """Seconds that a pass takes when a part of the job is predicted, written to a folder that goes again."""
    from ensemble.predict.sliding_window import CPU, Network, Output, frame_reader, predict_job

    patches = max(1, min(job.patches, int(TIMED_S / runner.patch_s())))
    part = part_of(job, patches)
    with tempfile.TemporaryDirectory(prefix="ensemble-timed-") as folder:
        stored = open_prediction(Path(folder), "timed", part)
        output = Output(Section(stored, part.stored.box), sums_on=runner.device if budget.cut(job) is not None else CPU)
        began = time.monotonic()
        predict_job(
            part,
            Network(runner, runner.batch_size(), runner.device),
            frame_reader(part, tissue_of(prepared.em, job)),
            output,
        )
        seconds = time.monotonic() - began
    return seconds / (part.patches * FORWARD_PASSES[job.tta])


def part_of(job: Job, patches: int) -> Job:
    """A job of about so many of a job's patches, of which as much is kept as each patch of a whole job adds."""
    counts = [0, 0, 0]
    for axis, left in ((2, patches), (1, 0), (0, 0)):
        left = left or max(1, patches // (counts[2] * max(counts[1], 1)))
        counts[axis] = min(len(job.starts[axis]), left)
    box, kept = job.lattice.box, job.lattice.box
    for axis, (starts, count) in enumerate(zip(job.starts, counts, strict=True)):
        if count < len(starts):
            box = box.with_axis(axis, 0, starts[count - 1] + job.patch[axis])
            kept = kept.with_axis(axis, 0, starts[count])
    lattice, needed = job.lattice.sub(box), kept.intersect(box)
    z, y, x = (along[:count] for along, count in zip(job.starts, counts, strict=True))
    return replace(
        job,
        lattice=lattice,
        needed=needed,
        starts=(z, y, x),
        stored=lattice.sub(needed).covering(job.stored.voxel_size_nm),
    )
