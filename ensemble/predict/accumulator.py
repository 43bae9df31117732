"""What a network has predicted so far of a crop: partial sums of overlapping patches.

Patches are averaged with Gaussian weights, as MONAI's sliding window does. Sums are one patch and a step deep,
whatever the crop's depth. Where they would take more memory than there is, they lie in an unlinked file
whose pages are given back as soon as they are not in use.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ensemble.core import VoxelsZYX
from ensemble.plan import Job
from ensemble.support import EnsembleError, is_disk_full


class FloatBuffer:
    """Zeros in memory, or in a file that nobody else sees under ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._maps: list[mmap.mmap] = []

    @property
    def spills(self) -> bool:
        return self._folder is not None

    def zeros(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
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
                if not is_disk_full(error):
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
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


class PatchSums:
    """Weighted sums of overlapping patches: plane z is kept at z modulo the ring's length.

    The ring is a step longer than a patch, so that planes which are finished can be taken while the next
    row of patches is added.
    """

    def __init__(
        self,
        job: Job,
        buffer: FloatBuffer,
        patch_weights: torch.Tensor,
        row_weights: NDArray[np.float32],
        sums: NDArray[np.float32],
    ) -> None:
        self._buffer = buffer
        self._depth, self._ring = job.patch[0], job.ring_planes
        self._sums = torch.from_numpy(sums).permute(1, 2, 0, 3)
        self._map, self._weights = patch_weights, row_weights
        self._starts = job.starts[0]
        self._needed = job.needed

    @classmethod
    def of(cls, job: Job, buffer: FloatBuffer) -> "PatchSums":
        """Empty sums of a job."""
        from monai.data.utils import compute_importance_map  # seconds to import

        patch_weights = compute_importance_map(job.patch, mode="gaussian", sigma_scale=0.125)
        # what patches at one z sum to, (patch's depth, y, x), is the same at every z
        row_weights = buffer.zeros((job.patch[0], *job.lattice.shape[1:]))
        _, rows, columns = job.patch
        for y, x in product(*job.starts[1:]):
            row_weights[:, y : y + rows, x : x + columns] += patch_weights.numpy()
        buffer.release()
        _, height, width = job.lattice.shape
        # rows are outermost, so that a row of patches lies together
        sums = buffer.zeros((height, len(job.classes), job.ring_planes, width))
        return cls(job, buffer, patch_weights, row_weights, sums)

    def add(self, p: torch.Tensor, start: VoxelsZYX) -> None:
        """Add a patch (channels, z, y, x) on the CPU."""
        z, y, x = start
        ys, xs = slice(y, y + p.shape[2]), slice(x, x + p.shape[3])
        for part, ring in self._pieces(z, z + self._depth):
            self._sums[:, ring, ys, xs].addcmul_(p[:, part], self._map[part])

    def row_done(self) -> None:
        """A row of patches is added."""
        self._buffer.release()

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Planes start ... stop - 1 as runs: (place within them, place in the ring)."""
        at = start
        while at < stop:
            ring = at % self._ring
            n = min(stop - at, self._ring - ring)
            yield slice(at - start, at - start + n), slice(ring, ring + n)
            at += n

    def taken(self, channel: int, start: int, stop: int, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of planes start ... stop - 1 over the needed rows and columns; their sums restart."""
        _, ys, xs = self._needed.slices
        out = np.empty((stop - start, *self._needed.shape[1:]), np.float32)
        for part, ring in self._pieces(start, stop):
            planes = self._sums[channel, ring]
            np.divide(planes[:, ys, xs].numpy(), weights[part], out=out[part])
            planes.zero_()
        self._buffer.release()
        return out

    def weights(self, start: int, stop: int) -> NDArray[np.float32]:
        """What patches weigh in planes start ... stop - 1, over the needed rows and columns."""
        _, ys, xs = self._needed.slices
        weights = np.zeros((stop - start, *self._needed.shape[1:]), np.float32)
        for z in self._starts:
            low, high = max(start, z), min(stop, z + self._depth)
            if low < high:
                weights[low - start : high - start] += self._weights[low - z : high - z, ys, xs]
        return weights
