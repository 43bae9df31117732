"""What a network has predicted so far of a crop: partial sums of overlapping patches, and planes on their way out.

Patches are averaged with Gaussian weights, as MONAI's sliding window does. Both arrays are one patch and a step
deep, whatever the crop's depth. Where they would take more memory than there is, they lie in an unlinked file
whose pages are given back as soon as they are not in use.
"""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ensemble.core.grid import Grid
from ensemble.core.resampling import resample, support
from ensemble.plan.plan import STORED_PLANES, Job
from ensemble.support import machine as resources
from ensemble.support.errors import EnsembleError


class Stored(Protocol):
    """An array (channels, z, y, x) of uint8 that takes blocks."""

    def __setitem__(self, index: tuple[slice, ...], value: np.ndarray) -> None: ...


class Room:
    """Zeros in memory, or in a file that nobody else sees under ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._maps: list[mmap.mmap] = []

    @property
    def spills(self) -> bool:
        return self._folder is not None

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32. Raises EnsembleError when the disk has no room."""
        if self._folder is None:
            return np.zeros(shape, np.float32)
        size = 4 * int(np.prod(shape))
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            try:
                # a hole in the file would end in a bus error where the disk is full
                allocate = getattr(
                    os, "posix_fallocate", lambda descriptor, start, size: os.ftruncate(descriptor, size)
                )
                allocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise EnsembleError(
                    f"{self._folder}: the disk is full: partial sums need {size / 2**30:.1f} GiB there; free some "
                    "space or give more --memory, and run the same command again"
                ) from error
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.append(mapped)
        return np.frombuffer(mapped, np.float32).reshape(shape)

    def release(self) -> None:
        """Give back the pages in use; the file keeps what they hold."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)


class Sums:
    """Weighted sums of overlapping patches: plane z is kept at z modulo the ring's length.

    The ring is a step longer than a patch, so that planes which are finished can be taken while the next
    row of patches is added.
    """

    def __init__(self, job: Job, room: Room) -> None:
        from monai.data.utils import compute_importance_map  # seconds to import

        self._room = room
        self._depth, self._ring = job.patch[0], job.ring_planes
        _, height, width = job.lattice.shape
        # rows are outermost, so that a row of patches lies together
        sums = room.zeros((height, len(job.classes), self._ring, width))
        self._sums = torch.from_numpy(sums).permute(1, 2, 0, 3)
        self._map = compute_importance_map(job.patch, mode="gaussian", sigma_scale=0.125)
        self._starts = job.starts[0]
        self._weights = self._weights_of_a_row(job)
        self._needed = job.needed

    def _weights_of_a_row(self, job: Job) -> np.ndarray:
        """The weights that patches at one z sum to, (patch's depth, y, x): they are the same at every z."""
        weights = self._room.zeros((self._depth, *job.lattice.shape[1:]))
        _, rows, columns = job.patch
        for y, x in product(*job.starts[1:]):
            weights[:, y : y + rows, x : x + columns] += self._map.numpy()
        self._room.release()
        return weights

    def add(self, p: torch.Tensor, start: tuple[int, int, int]) -> None:
        """Add a patch (channels, z, y, x) on the CPU."""
        z, y, x = start
        ys, xs = slice(y, y + p.shape[2]), slice(x, x + p.shape[3])
        for part, ring in self._pieces(z, z + self._depth):
            self._sums[:, ring, ys, xs].addcmul_(p[:, part], self._map[part])

    def row_done(self) -> None:
        """A row of patches is added."""
        self._room.release()

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Planes start ... stop - 1 as runs: (place within them, place in the ring)."""
        at = start
        while at < stop:
            ring = at % self._ring
            n = min(stop - at, self._ring - ring)
            yield slice(at - start, at - start + n), slice(ring, ring + n)
            at += n

    def taken(self, channel: int, start: int, stop: int, weights: np.ndarray) -> np.ndarray:
        """Probabilities of planes start ... stop - 1 over the needed rows and columns; their sums restart."""
        _, ys, xs = self._needed
        out = np.empty((stop - start, ys.stop - ys.start, xs.stop - xs.start), np.float32)
        for part, ring in self._pieces(start, stop):
            planes = self._sums[channel, ring]
            np.divide(planes[:, ys, xs].numpy(), weights[part], out=out[part])
            planes.zero_()
        self._room.release()
        return out

    def weights(self, start: int, stop: int) -> np.ndarray:
        """What patches weigh in planes start ... stop - 1, over the needed rows and columns."""
        _, ys, xs = self._needed
        weights = np.zeros((stop - start, ys.stop - ys.start, xs.stop - xs.start), np.float32)
        for z in self._starts:
            low, high = max(start, z), min(stop, z + self._depth)
            if low < high:
                weights[low - start : high - start] += self._weights[low - z : high - z, ys, xs]
        return weights


class Sink:
    """Carries finished planes to the stored grid and writes them a chunk deep, channel by channel."""

    def __init__(self, job: Job, stored: Stored, done_planes: int, room: Room) -> None:
        self._out, self._room = stored, room
        self._grid = job.stored
        self._source = job.lattice.sub(job.needed)
        self._needed = job.needed[0]
        self._channels = len(job.classes)
        self.written = done_planes
        # y and x are carried over at once; along z planes wait until a chunk of the stored grid is complete
        self._middle = Grid(
            (self._source.shape[0], *self._grid.shape[1:]),
            (self._source.voxel_size_nm[0], *self._grid.voxel_size_nm[1:]),
            (self._source.origin_nm[0], *self._grid.origin_nm[1:]),
        )
        self._waiting = room.zeros((self._channels, job.waiting_planes, *self._grid.shape[1:]))
        self._from = self._need(self.written)[0] if self.written < self._grid.shape[0] else 0
        self._count = 0

    def _planes(self, written: int) -> slice:
        return slice(written, min(written + STORED_PLANES, self._grid.shape[0]))

    def _need(self, written: int) -> tuple[int, int]:
        """Planes of the needed part that the next chunk of the stored grid is made of."""
        z = self._planes(written)
        planes = support(self._middle, self._grid.sub((z, slice(None), slice(None))))[0]
        return planes.start, planes.stop

    def first_plane_needed(self) -> int:
        return self._from + self._needed.start

    def take(self, sums: Sums, start: int, stop: int) -> None:
        """Take the lattice's planes start ... stop - 1, which are finished, and write what is complete."""
        skip = max(self._from + self._count - (start - self._needed.start), 0)
        last = min(stop, self._needed.stop)
        writes = self._complete(max(last - start - skip, 0))
        weights = sums.weights(start, stop)

        def one(channel: int) -> None:
            planes = sums.taken(channel, start, stop, weights)[skip : max(last - start, skip)]
            self._take(channel, planes, writes)

        with ThreadPoolExecutor(resources.cores(), "channel") as pool:
            list(pool.map(one, range(self._channels)))
        self._count += max(last - start - skip, 0)
        if writes:
            self.written = self._planes(writes[-1]).stop
            first = self._need(self.written)[0] if self.written < self._grid.shape[0] else self._from
            self._count -= first - self._from
            self._from = first

    def _complete(self, more: int) -> list[int]:
        """Where the stored chunks start that ``more`` planes complete."""
        written, found = self.written, []
        while written < self._grid.shape[0] and self._need(written)[1] <= self._from + self._count + more:
            found.append(written)
            written = self._planes(written).stop
        return found

    def _take(self, channel: int, planes: np.ndarray, writes: list[int]) -> None:
        waiting, count = self._waiting[channel], self._count
        if len(planes):
            source = self._source.sub((slice(0, len(planes)), slice(None), slice(None)))
            target = self._middle.sub((slice(0, len(planes)), slice(None), slice(None)))
            waiting[count : count + len(planes)] = resample(planes, source, target)
            count += len(planes)
        for written in writes:
            z, (start, stop) = self._planes(written), self._need(written)
            source = self._middle.sub((slice(start, stop), slice(None), slice(None)))
            target = self._grid.sub((z, slice(None), slice(None)))
            p = resample(waiting[start - self._from : stop - self._from], source, target)
            self._out[channel : channel + 1, z] = quantised(p)[None]
        if writes:
            after = self._planes(writes[-1]).stop
            first = (self._need(after)[0] if after < self._grid.shape[0] else self._from + count) - self._from
            waiting[: count - first] = waiting[first:count].copy()
        self._room.release()


def quantised(p: np.ndarray) -> np.ndarray:
    """round(255 p) as uint8; NaN is refused."""
    if np.isnan(p).any():
        raise EnsembleError("a network predicted NaN; its weights or its normalisation do not fit the EM")
    return np.rint(np.clip(p, 0, 1) * 255).astype(np.uint8)
