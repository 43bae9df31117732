"""A job in parts: along y and x where sums of all of it do not fit a device, along z where several devices share it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

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


Cut = tuple[int, int]
"""Into how many parts along y and x."""


def parts_of(job: Job, cut: Cut = (1, 1), slabs: int = 1) -> list[Part]:
    """A job cut along y and x, each part of it in ``slabs`` along z, or in fewer: bounds are those of stored chunks."""
    z_ranges, y_ranges, x_ranges = (
        _ranges(length, chunk, count)
        for length, chunk, count in zip(job.stored.shape, STORED_CHUNK, (slabs, *cut), strict=True)
    )
    boxes = [
        Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop)) for y, x, z in product(y_ranges, x_ranges, z_ranges)
    ]
    return [Part(_part(job, box), box) for box in boxes]


def cut_that_fits(job: Job, device_bytes: int) -> Cut | None:
    """Into how few parts a job is cut so that a device holds no more of each than that, beside its network.

    Of cuts into equally many the one of fewest forward passes. None where no part is small enough.
    """

    def fits(cut: Cut) -> bool:
        return all(device_bytes_of(part.job) <= device_bytes for part in parts_of(job, cut))

    def passes(cut: Cut) -> int:
        return sum(part.job.forward_passes for part in parts_of(job, cut))

    rows, columns = (math.ceil(job.stored.shape[axis] / STORED_CHUNK[axis]) for axis in (1, 2))
    if not fits((rows, columns)):
        return None
    cuts = sorted(product(range(1, rows + 1), range(1, columns + 1)), key=math.prod)
    for _, of_so_many in groupby(cuts, key=math.prod):
        if fitting := list(filter(fits, of_so_many)):
            return min(fitting, key=passes)
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
    region, starts = job.lattice.box, list(job.starts)
    for axis in range(3):
        along, patch = needed.along(axis), job.patch[axis]
        within = [at for at in job.starts[axis] if at < along.stop and at + patch > along.start]
        region = region.with_axis(axis, within[0], within[-1] + patch)
        starts[axis] = tuple(at - within[0] for at in within)
    z, y, x = starts
    moved: Starts = (z, y, x)
    return replace(job, lattice=job.lattice.sub(region), needed=needed.relative_to(region), stored=target, starts=moved)
