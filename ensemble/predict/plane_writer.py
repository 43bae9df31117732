"""Finished planes on their way out: carried to the stored grid, quantised, written a chunk deep."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Grid, resample, support
from ensemble.plan import STORED_PLANES, Job
from ensemble.predict.accumulator import FloatBuffer, PatchSums
from ensemble.support import EnsembleError, cores, in_threads


class PlaneStore(Protocol):
    """An array (channels, z, y, x) of uint8 that takes planes of a channel."""

    def __setitem__(self, index: tuple[slice, slice], values: NDArray[Any], /) -> None: ...


class PlaneWriter:
    """Carries finished planes to the stored grid and writes them a chunk deep, channel by channel.

    ``written``: planes of the stored grid before this are written for good.
    """

    def __init__(
        self, job: Job, stored: PlaneStore, done_planes: int, buffer: FloatBuffer, waiting: NDArray[np.float32]
    ) -> None:
        self._out, self._buffer, self._waiting = stored, buffer, waiting
        self._grid = job.stored
        self._source = job.lattice.sub(job.needed)
        self._needed = job.needed.along(0)
        self._channels = len(job.classes)
        self.written = done_planes
        # y and x are carried over at once; along z planes wait until a chunk of the stored grid is complete
        self._middle = Grid(
            (self._source.shape[0], *self._grid.shape[1:]),
            (self._source.voxel_size_nm[0], *self._grid.voxel_size_nm[1:]),
            (self._source.origin_nm[0], *self._grid.origin_nm[1:]),
        )
        self._from = self._need(self.written)[0] if self.written < self._grid.shape[0] else 0
        self._count = 0

    @classmethod
    def of(cls, job: Job, stored: PlaneStore, done_planes: int, buffer: FloatBuffer) -> "PlaneWriter":
        """A writer of a job of which some planes are written already."""
        waiting = buffer.zeros((len(job.classes), job.waiting_planes, *job.stored.shape[1:]))
        return cls(job, stored, done_planes, buffer, waiting)

    def _planes(self, written: int) -> slice:
        return slice(written, min(written + STORED_PLANES, self._grid.shape[0]))

    def _need(self, written: int) -> tuple[int, int]:
        """Planes of the needed part that the next chunk of the stored grid is made of."""
        z = self._planes(written)
        planes = support(self._middle, _planes_of(self._grid, z.start, z.stop)).along(0)
        return planes.start, planes.stop

    def first_plane_needed(self) -> int:
        return self._from + self._needed.start

    def take(self, sums: PatchSums, start: int, stop: int) -> None:
        """Take the lattice's planes start ... stop - 1, which are finished, and write what is complete."""
        skip = max(self._from + self._count - (start - self._needed.start), 0)
        last = min(stop, self._needed.stop)
        writes = self._complete(max(last - start - skip, 0))
        weights = sums.weights(start, stop)

        def take_channel(channel: int) -> None:
            planes = sums.taken(channel, start, stop, weights)[skip : max(last - start, skip)]
            self._take(channel, planes, writes)

        list(in_threads(cores(), take_channel, range(self._channels)))
        self._count += max(last - start - skip, 0)
        if writes:
            self.written = self._planes(writes[-1]).stop
            first = self._need(self.written)[0] if self.written < self._grid.shape[0] else self._from
            self._count -= first - self._from
            self._from = first

    def _complete(self, more: int) -> list[int]:
        """Where the stored chunks start that ``more`` planes complete."""
        written, complete = self.written, []
        while written < self._grid.shape[0] and self._need(written)[1] <= self._from + self._count + more:
            complete.append(written)
            written = self._planes(written).stop
        return complete

    def _take(self, channel: int, planes: NDArray[np.float32], writes: list[int]) -> None:
        waiting, count = self._waiting[channel], self._count
        if len(planes):
            source, target = _planes_of(self._source, 0, len(planes)), _planes_of(self._middle, 0, len(planes))
            waiting[count : count + len(planes)] = resample(planes, source, target)
            count += len(planes)
        for written in writes:
            z, (start, stop) = self._planes(written), self._need(written)
            source, target = _planes_of(self._middle, start, stop), _planes_of(self._grid, z.start, z.stop)
            p = resample(waiting[start - self._from : stop - self._from], source, target)
            self._out[channel : channel + 1, z] = quantised(p)[None]
        if writes:
            after = self._planes(writes[-1]).stop
            first = (self._need(after)[0] if after < self._grid.shape[0] else self._from + count) - self._from
            waiting[: count - first] = waiting[first:count].copy()
        self._buffer.release()


def _planes_of(grid: Grid, start: int, stop: int) -> Grid:
    return grid.sub(grid.box.with_axis(0, start, stop))


def quantised(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """round(255 p) as uint8; NaN is refused."""
    if np.isnan(p).any():
        raise EnsembleError("a network predicted NaN; its weights or its normalisation do not fit the EM")
    return np.rint(np.clip(p, 0, 1) * 255).astype(np.uint8)
