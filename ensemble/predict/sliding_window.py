"""Running a network over a crop, a row of patches at a time, and keeping its probabilities.

Planes that no later patch touches are normalised, carried to the stored grid and written, so that memory is
one patch deep whatever the crop's depth (see ``sums``). Probabilities are stored as uint8, round(255 p):
within 1/510.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.core.box import Slices
from ensemble.core.resampling import resample, support
from ensemble.plan.job import ROWS_READ, STORED_PLANES, Job
from ensemble.predict.accumulator import FloatBuffer, PatchSums
from ensemble.predict.plane_writer import PlaneStore, PlaneWriter
from ensemble.storage.tissue import Tissue
from registry.card import Normalisation

_PLANES_READ = 16
"""Planes of EM whose grey values are counted at once, where a network wants its input normalised by them."""


def frame_reader(job: Job, tissue: Tissue) -> Callable[[Slices], np.ndarray]:
    """A function that reads a block of the job's lattice (bounds in its voxels): EM as float32."""
    level = tissue.volume.grid
    if job.fit.exact:
        origin = [round(level.position_voxels(axis, job.lattice.origin_nm[axis])) for axis in range(3)]
        return lambda block: tissue.read(
            tuple(slice(s.start + o, s.stop + o) for s, o in zip(block, origin, strict=True))
        )

    def read(block: Slices) -> np.ndarray:
        target = job.lattice.sub(block)
        around = level.slices_over(target, (2, 2, 2))
        source = level.sub(around)
        inner = support(source, target)
        shifted = tuple(slice(i.start + a.start, i.stop + a.start) for i, a in zip(inner, around, strict=True))
        return resample(tissue.read(shifted), level.sub(shifted), target)

    return read


def predict_job(
    job: Job,
    run: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    read: Callable[[Slices], np.ndarray],
    stored: PlaneStore,
    *,
    done_planes: int = 0,
    progress: Callable[[int, int], None] = lambda patches, planes: None,
    spill_to: Path | None = None,
    write_behind: bool = False,
) -> None:
    """Write the job's probabilities, uint8 on ``job.stored``, from plane ``done_planes`` on.

    ``progress`` hears of patches computed and of planes of ``job.stored`` written for good. Partial sums are held
    in memory, or lie in a file in the folder ``spill_to``. EM is read while the network computes. So are finished
    planes written with ``write_behind``, for a network that leaves the cores idle; where it does not, threads
    that are held up at every operation cost more than is gained.
    """
    normalisation = job.model.card.normalisation.fixed(_planes(job, read))
    room = FloatBuffer(spill_to)
    sink = PlaneWriter(job, stored, done_planes, room)
    sums = PatchSums(job, room)
    first = sink.first_plane_needed()
    rows = [start for start in job.starts[0] if start + job.patch[0] > first]
    swaths = [job.starts[1][at : at + ROWS_READ] for at in range(0, len(job.starts[1]), ROWS_READ)]
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            ahead = _Ahead(reader, lambda place: _swath(job, read, normalisation, *place), list(product(rows, swaths)))
            taking = None
            for index, z in enumerate(rows):
                for ys in swaths:
                    swath = ahead.next()
                    for y in ys:
                        strip = swath[:, y - ys[0] : y - ys[0] + job.patch[1]]
                        for count in _add_row(job, run, batch_size, strip, sums, (z, y)):
                            progress(count, sink.written)
                        sums.row_done()
                if taking is not None:
                    taking.result()
                    progress(0, sink.written)
                final = job.lattice.shape[0] if index + 1 == len(rows) else rows[index + 1]
                taking = writer.submit(sink.take, sums, z, final)
                if not write_behind:
                    taking.result()
            if taking is not None:
                taking.result()
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown(cancel_futures=True)
    progress(0, sink.written)


class _Ahead:
    """Results of a function on items in turn, the next one computed in a thread meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._pool, self._function, self._items = pool, function, iter(items)
        self._pending: Future | None = None
        self._start()

    def _start(self) -> None:
        item = next(self._items, None)
        self._pending = None if item is None else self._pool.submit(self._function, item)

    def next(self) -> Any:
        result = self._pending.result()
        self._start()
        return result


def _planes(job: Job, read: Callable[[Slices], np.ndarray]) -> Iterator[np.ndarray]:
    """All EM that the job sees, a few planes at a time."""
    depth, height, width = job.lattice.shape
    for z in range(0, depth, _PLANES_READ):
        yield read((slice(z, min(z + _PLANES_READ, depth)), slice(0, height), slice(0, width)))


def _swath(
    job: Job, read: Callable[[Slices], np.ndarray], normalisation: Normalisation, z: int, ys: Sequence[int]
) -> torch.Tensor:
    """The EM under some rows of patches, normalised."""
    depth, height, _ = job.patch
    grey = read((slice(z, z + depth), slice(ys[0], ys[-1] + height), slice(0, job.lattice.shape[2])))
    return torch.from_numpy(normalisation.apply(np.asarray(grey, np.float32)))


def _add_row(
    job: Job,
    run: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    strip: torch.Tensor,
    sums: PatchSums,
    start: tuple[int, int],
) -> Iterator[int]:
    """Add a row of patches; yields how many were added at a time."""
    width, xs = job.patch[2], job.starts[2]
    for begin in range(0, len(xs), batch_size):
        batch = xs[begin : begin + batch_size]
        p = run(torch.stack([strip[:, :, x : x + width] for x in batch])).cpu()
        for one, x in zip(p, batch, strict=True):
            sums.add(one, (*start, x))
        yield len(batch)


def stored_chunks(job: Job) -> tuple[int, int, int, int]:
    """Chunks of a stored probability array: one class, thin enough to complete soon."""
    return (1, *(min(c, n) for c, n in zip((STORED_PLANES, 128, 128), job.stored.shape, strict=True)))
