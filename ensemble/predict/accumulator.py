"""What a network has predicted so far of a crop: partial sums of overlapping patches.

Patches are averaged with Gaussian weights, as MONAI's sliding window does. Sums lie on the device that runs the
network, or in host memory, and are one patch and a stored chunk deep, whatever the crop's depth. Where they would
take more host memory than there is, they lie in an unlinked file whose pages are given back as soon as they are not
in use.
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
    """Weighted sums of overlapping patches on a device: plane z is kept at z modulo the ring's length.

    The ring is longer than a patch by the planes that wait for a stored chunk to be complete.
    """

    def __init__(
        self, job: Job, buffer: FloatBuffer, sums: torch.Tensor, patch_weights: torch.Tensor, row_weights: torch.Tensor
    ) -> None:
        self._buffer = buffer
        self._depth, self._ring = job.patch[0], job.ring_planes
        self._sums, self._map, self._weights = sums, patch_weights, row_weights
        self._starts = job.starts[0]
        self._needed = job.needed

    @classmethod
    def of(cls, job: Job, device: torch.device, buffer: FloatBuffer) -> "PatchSums":
        """Empty sums of a job, on a device; ``buffer`` is where those on the CPU lie."""
        from monai.data.utils import compute_importance_map  # seconds to import

        def zeros(shape: tuple[int, ...]) -> torch.Tensor:
            if device.type == "cpu":
                return torch.from_numpy(buffer.zeros(shape))
            return torch.zeros(shape, device=device)

        patch_weights = compute_importance_map(job.patch, mode="gaussian", sigma_scale=0.125).to(device)
        # what patches at one z sum to, (patch's depth, y, x), is the same at every z
        row_weights = zeros((job.patch[0], *job.lattice.shape[1:]))
        _, rows, columns = job.patch
        for y, x in product(*job.starts[1:]):
            row_weights[:, y : y + rows, x : x + columns] += patch_weights
        buffer.release()
        _, height, width = job.lattice.shape
        # rows are outermost, so that a row of patches lies together
        sums = zeros((height, len(job.classes), job.ring_planes, width)).permute(1, 2, 0, 3)
        return cls(job, buffer, sums, patch_weights, row_weights)

    @property
    def device(self) -> torch.device:
        return self._sums.device

    def add(self, p: torch.Tensor, start: VoxelsZYX) -> None:
        """Add a patch (channels, z, y, x) on the device of the sums."""
        z, y, x = start
        ys, xs = slice(y, y + p.shape[2]), slice(x, x + p.shape[3])
        for part, ring in self._pieces(z, z + self._depth):
            self._sums[:, ring, ys, xs].addcmul_(p[:, part], self._map[part])

    def row_done(self) -> None:
        """What a pass answered is added."""
        self._buffer.release()

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Planes start ... stop - 1 as runs: (place within them, place in the ring)."""
        at = start
        while at < stop:
            ring = at % self._ring
            n = min(stop - at, self._ring - ring)
            yield slice(at - start, at - start + n), slice(ring, ring + n)
            at += n

    def probabilities(self, channels: slice, start: int, stop: int, weights: torch.Tensor) -> torch.Tensor:
        """Of the finished planes start ... stop - 1, over the needed rows and columns: (channels, z, y, x)."""
        _, ys, xs = self._needed.slices
        parts = [self._sums[channels, ring, ys, xs] / weights[part] for part, ring in self._pieces(start, stop)]
        self._buffer.release()
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def drop(self, start: int, stop: int) -> None:
        """Nobody needs the planes start ... stop - 1 any more: their place in the ring is free."""
        for _, ring in self._pieces(start, stop):
            self._sums[:, ring].zero_()
        self._buffer.release()

    def weights(self, start: int, stop: int) -> torch.Tensor:
        """What patches weigh in planes start ... stop - 1, over the needed rows and columns."""
        _, ys, xs = self._needed.slices
        weights = torch.zeros((stop - start, *self._needed.shape[1:]), device=self.device)
        for z in self._starts:
            low, high = max(start, z), min(stop, z + self._depth)
            if low < high:
                weights[low - start : high - start] += self._weights[low - z : high - z, ys, xs]
        return weights
