"""Running a network over a crop, a row of patches at a time, and keeping its probabilities.

Planes that no later patch touches are normalised, carried to the stored grid and written, so that memory is
one patch deep whatever the crop's depth (see ``accumulator``). Probabilities are stored as uint8, round(255 p):
within 1/510.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.core import Box, resample, support
from ensemble.plan import ROWS_READ, Job
from ensemble.predict.accumulator import FloatBuffer, PatchSums
from ensemble.predict.plane_writer import PlaneStore, PlaneWriter
from ensemble.storage import Tissue
from registry import Normalisation

_PLANES_READ = 16
"""Planes of EM whose grey values are counted at once, where a network wants its input normalised by them."""

ReadEM = Callable[[Box], NDArray[Any]]
"""EM on a box of a job's lattice."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Network:
    """What answers patches (B, z, y, x) with probabilities (B, channels, z, y, x), and how many at a time."""

    answer: Callable[[torch.Tensor], torch.Tensor]
    batch_size: int


@dataclass(frozen=True)
class Output:
    """Where probabilities go: ``planes`` before ``done_planes`` are written already.

    Partial sums are held in memory, or lie in a file in the folder ``spill_to``. With ``write_behind`` finished
    planes are written while the network computes, for one that leaves the cores idle; where it does not,
    threads that are held up at every operation cost more than is gained.
    """

    planes: PlaneStore
    done_planes: int = 0
    spill_to: Path | None = None
    write_behind: bool = False


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
    buffer = FloatBuffer(output.spill_to)
    sink = PlaneWriter.of(job, output.planes, output.done_planes, buffer)
    sums = PatchSums.of(job, buffer)
    first = sink.first_plane_needed()
    rows = [start for start in job.starts[0] if start + job.patch[0] > first]
    swaths = [job.starts[1][at : at + ROWS_READ] for at in range(0, len(job.starts[1]), ROWS_READ)]
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            ahead = _Ahead(reader, lambda place: _swath(job, read, normalisation, *place), list(product(rows, swaths)))
            taking: Future[None] | None = None
            for index, z in enumerate(rows):
                for ys in swaths:
                    swath = ahead.next()
                    for y in ys:
                        strip = swath[:, y - ys[0] : y - ys[0] + job.patch[1]]
                        for count in _add_row(job, network, strip, sums, (z, y)):
                            progress(count, sink.written)
                        sums.row_done()
                if taking is not None:
                    taking.result()
                    progress(0, sink.written)
                final = job.lattice.shape[0] if index + 1 == len(rows) else rows[index + 1]
                taking = writer.submit(sink.take, sums, z, final)
                if not output.write_behind:
                    taking.result()
            if taking is not None:
                taking.result()
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown(cancel_futures=True)
    progress(0, sink.written)


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
        assert self._pending is not None
        result = self._pending.result()
        self._pending = self._submitted()
        return result


def _planes(job: Job, read: ReadEM) -> Iterator[NDArray[Any]]:
    """All EM that the job sees, a few planes at a time."""
    for box in job.lattice.box.tiles((_PLANES_READ, *job.lattice.shape[1:])):
        yield read(box)


def _swath(job: Job, read: ReadEM, normalisation: Normalisation, z: int, ys: Sequence[int]) -> torch.Tensor:
    """The EM under some rows of patches, normalised."""
    depth, height, _ = job.patch
    grey = read(Box((z, ys[0], 0), (z + depth, ys[-1] + height, job.lattice.shape[2])))
    return torch.from_numpy(normalisation.apply(np.asarray(grey, np.float32)))


def _add_row(job: Job, network: Network, strip: torch.Tensor, sums: PatchSums, start: tuple[int, int]) -> Iterator[int]:
    """Add a row of patches; yields how many were added at a time."""
    width, xs = job.patch[2], job.starts[2]
    for begin in range(0, len(xs), network.batch_size):
        batch = xs[begin : begin + network.batch_size]
        answers = network.answer(torch.stack([strip[:, :, x : x + width] for x in batch])).cpu()
        for probabilities, x in zip(answers, batch, strict=True):
            sums.add(probabilities, (*start, x))
        yield len(batch)
