"""A job in parts: along y where sums of all of it do not fit a device's memory, along z where devices share it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ensemble.core import Box, support
from ensemble.plan.job import STORED_CHUNK, Job, Starts

_ROWS_OF_A_SLAB = 4
"""Rows of patches along z that a slab has at least: those at its ends are computed for its neighbour too."""

_TURNS = 2
"""Parts that each device has to do, at least, so that none waits long for the last."""


@dataclass(frozen=True)
class Part:
    """Some of a job's stored voxels, ``box``, as a job of its own that computes just the patches they need.

    Its probabilities are those of the whole job: each voxel has all its patches, in the same order.
    """

    job: Job
    box: Box


def parts_of(job: Job, columns: int, slabs: int = 1) -> list[Part]:
    """A job in ``columns`` along y, each in ``slabs`` along z, or in fewer: their bounds are those of stored chunks."""
    z_ranges, y_ranges = (
        _ranges(job.stored.shape[axis], STORED_CHUNK[axis], count) for axis, count in ((0, slabs), (1, columns))
    )
    whole = job.stored.box
    boxes = [whole.with_axis(0, z.start, z.stop).with_axis(1, y.start, y.stop) for y in y_ranges for z in z_ranges]
    return [Part(_part(job, box), box) for box in boxes]


def columns_that_fit(job: Job, device_bytes: int) -> int | None:
    """Into how many parts along y a job is cut so that a device holds no more of each, beside its network.

    None where no part is small enough.
    """
    for columns in range(1, math.ceil(job.stored.shape[1] / STORED_CHUNK[1]) + 1):
        if all(device_bytes_of(part.job) <= device_bytes for part in parts_of(job, columns)):
            return columns
    return None


def device_bytes_of(job: Job) -> int:
    """What a device that keeps a job's sums holds beside its network: EM, sums, and planes on their way."""
    return job.read_bytes + job.sum_bytes + job.row_bytes


def slabs_for(jobs: Sequence[Job], devices: int) -> dict[tuple[str, str], int]:
    """Into how many slabs along z each of the jobs is cut so that no device is long without work."""
    if devices == 1:
        return {job.identity: 1 for job in jobs}
    share = sum(job.forward_passes for job in jobs) / (devices * _TURNS)
    return {
        job.identity: max(1, min(math.ceil(job.forward_passes / share), len(job.starts[0]) // _ROWS_OF_A_SLAB))
        for job in jobs
    }


def _ranges(length: int, chunk: int, count: int) -> list[range]:
    """At most ``count`` ranges of whole chunks that cover a length, as even as can be."""
    chunks = math.ceil(length / chunk)
    count = min(count, chunks)
    bounds = [chunks * index // count * chunk for index in range(count)]
    return [range(a, b) for a, b in zip(bounds, [*bounds[1:], length], strict=True)]


def _part(job: Job, box: Box) -> Job:
    target, source = job.stored.sub(box), job.lattice.sub(job.needed)
    needed = support(source, target).shifted(job.needed.start)
    needed = needed.with_axis(2, job.needed.start[2], job.needed.stop[2])
    region, starts = job.lattice.box, list(job.starts)
    for axis in (0, 1):
        along, patch = needed.along(axis), job.patch[axis]
        within = [at for at in job.starts[axis] if at < along.stop and at + patch > along.start]
        region = region.with_axis(axis, within[0], within[-1] + patch)
        starts[axis] = tuple(at - within[0] for at in within)
    z, y, x = starts
    moved: Starts = (z, y, x)
    return replace(job, lattice=job.lattice.sub(region), needed=needed.relative_to(region), stored=target, starts=moved)
