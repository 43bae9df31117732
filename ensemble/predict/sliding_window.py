"""Running a network over a crop, a row of patches at a time, and keeping its probabilities.

Planes that no later patch touches are normalised, carried to the stored grid, made bytes and written, so that memory
is one patch and a stored chunk deep whatever the crop's depth (see ``accumulator``). All of it happens on the device
that keeps the sums; only finished bytes leave it. Probabilities are stored as uint8, round(255 p): within 1/510.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.core import Box, VoxelsZYX, resample, support
from ensemble.plan import ROWS_READ, Job
from ensemble.predict.accumulator import FloatBuffer, PatchSums
from ensemble.predict.lane import Lane
from ensemble.predict.plane_writer import PlaneStore, PlaneWriter
from ensemble.storage import Tissue
from ensemble.support import cores

_PLANES_READ = 16
"""Planes of EM whose grey values are counted at once, where a network wants its input normalised by them."""

CPU = torch.device("cpu")

ReadEM = Callable[[Box], NDArray[Any]]
"""EM on a box of a job's lattice."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Network:
    """What answers patches (B, z, y, x) with probabilities (B, channels, z, y, x), how many at a time, and where."""

    answer: Callable[[torch.Tensor], torch.Tensor]
    batch_size: int
    device: torch.device = CPU


@dataclass(frozen=True)
class Output:
    """Where probabilities go: ``planes`` before ``done_planes`` are written already.

    Partial sums are kept on the device ``sums_on``; those on the CPU lie in a file in the folder ``spill_to`` where
    that is said.
    """

    planes: PlaneStore
    done_planes: int = 0
    sums_on: torch.device = CPU
    spill_to: Path | None = None


def frame_reader(job: Job, tissue: Tissue) -> ReadEM:
    """A function that reads a box of the job's lattice (bounds in its voxels)."""
    level = tissue.volume.grid
    if job.fit.exact:
        origin = [round(level.position_voxels(axis, job.lattice.origin_nm[axis])) for axis in range(3)]
        return lambda box: tissue.read(box.shifted(origin))

    def read(box: Box) -> NDArray[np.float32]:
        target = job.lattice.sub(box)
        around = level.box_over(target, (2, 2, 2))
        needed = support(level.sub(around), target).shifted(around.start)
        return resample(tissue.read(needed), level.sub(needed), target)

    return read


def predict_job(
    job: Job,
    network: Network,
    read: ReadEM,
    output: Output,
    progress: Callable[[int, int], None] = lambda patches, planes: None,
) -> None:
    """Write the job's probabilities, uint8 on ``job.stored``; EM is read while the network computes.

    ``progress`` hears of patches computed and of planes of ``job.stored`` written for good.
    """
    normalisation = job.model.card.normalisation.fixed(_planes(job, read))
    sums = PatchSums.of(job, output.sums_on, FloatBuffer(output.spill_to))
    lane, on_cpu = Lane(network.device, "in"), network.device.type == "cpu"
    swaths = [job.starts[1][at : at + ROWS_READ] for at in range(0, len(job.starts[1]), ROWS_READ)]
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(cores(), "write") as pool:
        try:
            writer = PlaneWriter(job, output.planes, output.done_planes, sums, pool)
            first = writer.first_plane_needed()
            rows = [start for start in job.starts[0] if start + job.patch[0] > first]
            ahead = _Ahead(reader, partial(_swath, job, read, lane, normalisation.apply), list(product(rows, swaths)))
            for z, following in pairwise([*rows, job.lattice.shape[0]]):
                for patches, places in _batches(job, swaths, lane, ahead, network.batch_size):
                    _add(network, patches, [(z, *place) for place in places], sums)
                    lane.keep_pace()
                    progress(len(places), writer.written)
                # on a CPU threads that compete with a network hold up each of its operations
                writer.take(following, wait=on_cpu)
                progress(0, writer.written)
            writer.settle(wait=True)
        finally:
            reader.shutdown(cancel_futures=True)
            pool.shutdown(cancel_futures=True)
    progress(0, writer.written)


class _Ahead(Generic[Item, Result]):
    """Results of a function on items in turn, the next one computed in a thread meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self._pool, self._function, self._items = pool, function, iter(items)
        self._pending = self._submitted()

    def _submitted(self) -> Future[Result] | None:
        for item in self._items:
            return self._pool.submit(self._function, item)
        return None

    def next(self) -> Result:
        """The next result; there is one for each item."""
        pending, self._pending = self._pending, None
        assert pending is not None
        result = pending.result()
        self._pending = self._submitted()
        return result


def _planes(job: Job, read: ReadEM) -> Iterator[NDArray[Any]]:
    """All EM that the job sees, a few planes at a time."""
    for box in job.lattice.box.tiles((_PLANES_READ, *job.lattice.shape[1:])):
        yield read(box)


def _swath(
    job: Job,
    read: ReadEM,
    lane: Lane,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    place: tuple[int, Sequence[int]],
) -> tuple[torch.Tensor, Any]:
    """The EM under some rows of patches, normalised, on its way to the network's device."""
    (z, ys), (depth, height, _) = place, job.patch
    return lane.uploaded(read(Box((z, ys[0], 0), (z + depth, ys[-1] + height, job.lattice.shape[2]))), normalise)


def _batches(
    job: Job,
    swaths: Sequence[Sequence[int]],
    lane: Lane,
    ahead: _Ahead[Any, tuple[torch.Tensor, Any]],
    most: int,
) -> Iterator[tuple[torch.Tensor, list[tuple[int, int]]]]:
    """All patches (B, z, y, x) at one z with their places (y, x), as even in number as can be and at most ``most``."""
    (_, height, width), (_, rows, columns) = job.patch, job.starts
    count = len(rows) * len(columns)
    size = math.ceil(count / math.ceil(count / most))
    patches: list[torch.Tensor] = []
    places: list[tuple[int, int]] = []
    for ys in swaths:
        swath = lane.joined(*ahead.next())
        for y, x in product(ys, columns):
            top = y - ys[0]
            patches.append(swath[:, top : top + height, x : x + width])
            places.append((y, x))
            if len(patches) == size:
                yield torch.stack(patches), places
                patches, places = [], []
    if patches:
        yield torch.stack(patches), places


def _add(network: Network, patches: torch.Tensor, places: Sequence[VoxelsZYX], sums: PatchSums) -> None:
    """Answers are gone when this returns, so that no two passes' lie in memory."""
    answers = network.answer(patches).to(sums.device)
    for probabilities, place in zip(answers, places, strict=True):
        sums.add(probabilities, place)
    sums.row_done()
