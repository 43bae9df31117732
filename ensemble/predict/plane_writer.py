"""Finished planes on their way out: carried to the stored grid, quantised, written a chunk deep."""

import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray

from ensemble.core import apply_along, resampling_matrices, support
from ensemble.plan import STORED_CHUNK, Job
from ensemble.predict.accumulator import PatchSums
from ensemble.predict.lane import Lane
from ensemble.support import EnsembleError, cores

_AT_ONCE = 2
"""Groups of channels on their way, for each thread that writes, where a network waits for them."""


class PlaneStore(Protocol):
    """An array (channels, z, y, x) of uint8 that takes planes of some channels."""

    def __setitem__(self, index: tuple[slice, slice], values: NDArray[Any], /) -> None: ...


class _Chunk(NamedTuple):
    """Stored planes, and what of them is being written."""

    stop: int
    writes: list[Future[None]]


class PlaneWriter:
    """Carries finished planes to the stored grid on the device of the sums; threads write them a chunk deep.

    ``written``: planes of the stored grid before this are written for good.
    """

    def __init__(
        self, job: Job, stored: PlaneStore, done_planes: int, sums: PatchSums, pool: ThreadPoolExecutor
    ) -> None:
        self._out, self._sums, self._pool = stored, sums, pool
        self._grid, self._source, self._needed = job.stored, job.lattice.sub(job.needed), job.needed
        self._groups = [
            slice(first, min(first + job.channels_at_once, len(job.classes)))
            for first in range(0, len(job.classes), job.channels_at_once)
        ]
        self._lane = Lane(sums.device, "out")
        self._matrices: dict[bytes, torch.Tensor] = {}
        self._next = self.written = done_planes
        self._waiting: deque[_Chunk] = deque()
        self._dropped = next((z for z in job.starts[0] if z + job.patch[0] > self.first_plane_needed()), 0)

    def first_plane_needed(self) -> int:
        """The first plane of the lattice that planes which are not written are made of."""
        return self._from(self._next)

    def take(self, final: int, *, wait: bool) -> None:
        """Planes of the lattice before ``final`` are finished: hand over what they complete.

        With ``wait`` it is written when this returns; without, what was handed over before is.
        """
        self.settle(wait=True)
        while self._next < self._grid.shape[0]:
            planes = slice(self._next, min(self._next + STORED_CHUNK[0], self._grid.shape[0]))
            needed = self._lattice_planes(planes)
            if needed.stop > final:
                break
            self._hand_over(planes, needed, at_once=_AT_ONCE * cores() if wait else sys.maxsize)
            self._next = planes.stop
        unneeded = min(self._from(self._next), final)
        if unneeded > self._dropped:
            self._sums.drop(self._dropped, unneeded)
            self._dropped = unneeded
        self.settle(wait=wait)

    def settle(self, *, wait: bool) -> None:
        """Note what is written; raise what failed. With ``wait`` all of it is."""
        while self._waiting and (wait or all(write.done() for write in self._waiting[0].writes)):
            for write in self._waiting[0].writes:
                write.result()
            self.written = self._waiting.popleft().stop

    def _from(self, stored_plane: int) -> int:
        if stored_plane >= self._grid.shape[0]:
            return self._needed.stop[0]
        return self._lattice_planes(slice(stored_plane, min(stored_plane + STORED_CHUNK[0], self._grid.shape[0]))).start

    def _lattice_planes(self, stored: slice) -> range:
        """Planes of the lattice that planes of the stored grid are made of."""
        target = self._grid.sub(self._grid.box.with_axis(0, stored.start, stored.stop))
        return support(self._source, target).shifted(self._needed.start).along(0)

    def _hand_over(self, planes: slice, needed: range, at_once: int) -> None:
        first = self._needed.start[0]
        source = self._source.sub(self._source.box.with_axis(0, needed.start - first, needed.stop - first))
        target = self._grid.sub(self._grid.box.with_axis(0, planes.start, planes.stop))
        matrices = [(axis, self._on_device(matrix)) for axis, matrix in resampling_matrices(source, target)]
        weights = self._sums.weights(needed.start, needed.stop)
        chunk = _Chunk(planes.stop, [])
        self._waiting.append(chunk)
        for channels in self._groups:
            p = self._sums.probabilities(channels, needed.start, needed.stop, weights)
            for axis, matrix in matrices:
                p = apply_along(axis, matrix, p)
            finished = quantised(p)
            chunk.writes.append(self._pool.submit(self._write, channels, planes, finished, self._lane.mark()))
            if len(chunk.writes) > at_once:
                chunk.writes[-at_once].result()

    def _on_device(self, matrix: NDArray[Any]) -> torch.Tensor:
        key = matrix.tobytes()
        if key not in self._matrices:
            self._matrices[key] = torch.from_numpy(matrix).to(self._sums.device)
        return self._matrices[key]

    def _write(self, channels: slice, planes: slice, finished: "Quantised", event: Any) -> None:
        if self._lane.downloaded(finished.has_nan, event).any():
            raise EnsembleError("a network predicted NaN; its weights or its normalisation do not fit the EM")
        self._out[channels, planes] = self._lane.downloaded(finished.values, event)


class Quantised(NamedTuple):
    """round(255 p) as uint8, and whether any p was NaN, which nobody may store."""

    values: torch.Tensor
    has_nan: torch.Tensor


def quantised(p: torch.Tensor) -> Quantised:
    """Of probabilities, on their device."""
    return Quantised((p.clamp(0, 1) * 255).round().to(torch.uint8), p.isnan().any())
