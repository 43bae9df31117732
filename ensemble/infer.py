"""Running a network over a crop, a patch deep at a time, and keeping its probabilities.

Patches overlap and are averaged with Gaussian weights, as MONAI's sliding window does. Planes that no later
patch touches are normalised, carried to the stored grid and written, so that memory is one patch deep
whatever the crop's depth. Probabilities are stored as uint8, round(255 p): within 1/510.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal, Protocol

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from torch import nn

from ensemble.errors import EnsembleError
from ensemble.grid import Grid, Slices
from ensemble.plan import Job
from ensemble.resample import resample, support
from ensemble.volume import Tissue
from registry.card import Card

Precision = Literal["32", "16", "bf16"]

_VOXELS_PER_BATCH = {"cpu": 1 << 17, "cuda": 1 << 22, "mps": 1 << 20}


class Stored(Protocol):
    """An array (channels, z, y, x) of uint8 that takes blocks."""

    def __setitem__(self, index: tuple[slice, ...], value: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Runner:
    """A network on a device, from EM patches to probabilities."""

    network: nn.Module
    card: Card
    channels: tuple[int, ...]
    tta: str
    device: torch.device
    precision: Precision = "32"

    @classmethod
    def of(cls, network: nn.Module, job: Job, device: torch.device, precision: Precision) -> "Runner":
        """The network with the channels, augmentation and card of a job."""
        card = job.model.card
        channels = tuple(card.classes.index(name) for name in job.classes)
        return cls(network, card, channels, job.tta, device, precision)

    def for_job(self, job: Job) -> "Runner":
        """The same network for another job of its model."""
        return Runner.of(self.network, job, self.device, self.precision)

    def batch_size(self) -> int:
        """Patches per forward pass: fixed by the patch and the kind of device, so that results repeat."""
        return max(1, _VOXELS_PER_BATCH[self.device.type] // int(np.prod(self.card.patch_voxels)))

    def __call__(self, patches: np.ndarray) -> torch.Tensor:
        """Probabilities (B, channels, z, y, x) of EM patches (B, z, y, x), averaged over augmentations."""
        grey = torch.from_numpy(np.ascontiguousarray(patches, dtype=np.float32)).to(self.device)
        inputs = self.card.normalisation.apply(grey).unsqueeze(1)
        total, count = None, 0
        with torch.inference_mode(), self._autocast():
            for turn in _turns(self.tta):
                p = turn.undo(self._activated(self.network(turn.do(inputs))))
                total = p if total is None else total + p
                count += 1
        return total / count

    def _activated(self, outputs: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        if self.card.activation == "sigmoid":
            return torch.sigmoid(outputs[:, self.channels])
        if self.card.activation == "softmax":
            return torch.softmax(outputs, dim=1)[:, self.channels]
        return outputs[:, self.channels]

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "32":
            return contextlib.nullcontext()
        dtype = torch.float16 if self.precision == "16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


@dataclass(frozen=True)
class _Turn:
    """A symmetry of the cube: axes permuted, then some of them mirrored."""

    order: tuple[int, int, int]
    mirrored: tuple[int, ...]

    def do(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 1, *(2 + axis for axis in self.order))
        return torch.flip(x, self.mirrored) if self.mirrored else x

    def undo(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.flip(x, self.mirrored) if self.mirrored else x
        return x.permute(0, 1, *(2 + self.order.index(axis) for axis in range(3)))


def _turns(tta: str) -> Iterator[_Turn]:
    orders = permutations(range(3)) if tta == "octahedral" else [(0, 1, 2)]
    flips = product((False, True), repeat=3) if tta != "none" else [(False, False, False)]
    for order, flip in product(list(orders), list(flips)):
        yield _Turn(tuple(order), tuple(2 + axis for axis, on in enumerate(flip) if on))


def device(name: str) -> torch.device:
    """``auto`` is CUDA where there is some, then MPS, then the CPU. Raises EnsembleError for one not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    kind = name.split(":")[0]
    if not there.get(kind, False):
        have = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise EnsembleError(f"--device {name}: not on this machine, which has {have}")
    return torch.device(name)


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


def predict(
    job: Job,
    run: Callable[[np.ndarray], torch.Tensor],
    batch_size: int,
    read: Callable[[Slices], np.ndarray],
    stored: Stored,
    *,
    done_planes: int = 0,
    progress: Callable[[int, int], None] = lambda patches, planes: None,
) -> None:
    """Write the job's probabilities, uint8 on ``job.stored``, from plane ``done_planes`` on.

    ``progress`` hears of patches computed and of planes of ``job.stored`` written for good.
    """
    sink = _Sink(job, stored, done_planes)
    sums = _Sums(job)
    rows = job.starts[0]
    first = sink.first_plane_needed()
    rows = [start for start in rows if start + job.patch[0] > first]
    for index, z in enumerate(rows):
        for count in _add_row(job, run, batch_size, read, sums, z):
            progress(count, sink.written)
        last = index + 1 == len(rows)
        final = job.lattice.shape[0] if last else rows[index + 1]
        sink.take(sums.planes(z, final), z)
        progress(0, sink.written)


def _add_row(
    job: Job,
    run: Callable[[np.ndarray], torch.Tensor],
    batch_size: int,
    read: Callable[[Slices], np.ndarray],
    sums: "_Sums",
    z: int,
) -> Iterator[int]:
    """Add all patches that start at plane ``z``; yields how many were added at a time."""
    depth, height, width = job.patch
    for y in job.starts[1]:
        strip = read((slice(z, z + depth), slice(y, y + height), slice(0, job.lattice.shape[2])))
        xs = job.starts[2]
        for begin in range(0, len(xs), batch_size):
            batch = xs[begin : begin + batch_size]
            p = run(np.stack([strip[:, :, x : x + width] for x in batch])).cpu().numpy()
            for one, x in zip(p, batch, strict=True):
                sums.add(one, (z, y, x))
            yield len(batch)


class _Sums:
    """Weighted sums of overlapping patches, one patch deep: plane z is kept at z modulo the depth."""

    def __init__(self, job: Job) -> None:
        self._depth = job.patch[0]
        plane = job.lattice.shape[1:]
        self._sums = np.zeros((len(job.classes), self._depth, *plane), np.float32)
        self._weights = np.zeros((self._depth, *plane), np.float32)
        self._map = compute_importance_map(job.patch, mode="gaussian", sigma_scale=0.125).numpy()
        self._needed = job.needed

    def add(self, p: np.ndarray, start: tuple[int, int, int]) -> None:
        z, y, x = start
        ys, xs = slice(y, y + p.shape[2]), slice(x, x + p.shape[3])
        weighted = p * self._map
        for part, ring in self._pieces(z, z + self._depth):
            self._sums[:, ring, ys, xs] += weighted[:, part]
            self._weights[ring, ys, xs] += self._map[part]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Planes start ... stop - 1 as runs: (place within them, place in the ring)."""
        at = start
        while at < stop:
            ring = at % self._depth
            n = min(stop - at, self._depth - ring)
            yield slice(at - start, at - start + n), slice(ring, ring + n)
            at += n

    def planes(self, start: int, stop: int) -> np.ndarray:
        """Probabilities of planes start ... stop - 1 over the needed rows and columns; their sums restart."""
        _, ys, xs = self._needed
        out = np.empty((len(self._sums), stop - start, ys.stop - ys.start, xs.stop - xs.start), np.float32)
        for part, ring in self._pieces(start, stop):
            np.divide(self._sums[:, ring, ys, xs], self._weights[ring, ys, xs], out=out[:, part])
            self._sums[:, ring] = 0
            self._weights[ring] = 0
        return out


class _Sink:
    """Carries finished planes to the stored grid and writes them a chunk deep."""

    def __init__(self, job: Job, stored: Stored, done_planes: int) -> None:
        self._out = stored
        self._grid = job.stored
        self._source = job.lattice.sub(job.needed)
        self._needed = job.needed[0]
        self.written = done_planes
        self._thickness = stored_chunks(job)[1]
        # y and x are carried over at once; along z planes wait until a chunk of the stored grid is complete
        self._middle = Grid(
            (self._source.shape[0], *self._grid.shape[1:]),
            (self._source.voxel_size_nm[0], *self._grid.voxel_size_nm[1:]),
            (self._source.origin_nm[0], *self._grid.origin_nm[1:]),
        )
        self._waiting = np.zeros((len(job.classes), 0, *self._grid.shape[1:]), np.float32)
        self._from = self._need()[0] if self.written < self._grid.shape[0] else 0

    def _next(self) -> slice:
        return slice(self.written, min(self.written + self._thickness, self._grid.shape[0]))

    def _need(self) -> tuple[int, int]:
        """Planes of the needed part that the next chunk of the stored grid is made of."""
        z = self._next()
        planes = support(self._middle, self._grid.sub((z, slice(None), slice(None))))[0]
        return planes.start, planes.stop

    def first_plane_needed(self) -> int:
        return self._from + self._needed.start

    def take(self, planes: np.ndarray, start: int) -> None:
        """Take the lattice's finished planes from ``start`` on, rows and columns already cut."""
        skip = self._from + self._waiting.shape[1] - (start - self._needed.start)
        keep = planes[:, max(skip, 0) : self._needed.stop - start]
        if keep.shape[1] <= 0:
            return
        source = self._source.sub((slice(0, keep.shape[1]), slice(None), slice(None)))
        target = self._middle.sub((slice(0, keep.shape[1]), slice(None), slice(None)))
        carried = np.stack([resample(channel, source, target) for channel in keep])
        self._waiting = np.concatenate([self._waiting, carried], axis=1)
        while self.written < self._grid.shape[0] and self._need()[1] <= self._from + self._waiting.shape[1]:
            self._write()

    def _write(self) -> None:
        z = self._next()
        start, stop = self._need()
        window = slice(start - self._from, stop - self._from)
        source = self._middle.sub((slice(start, stop), slice(None), slice(None)))
        target = self._grid.sub((z, slice(None), slice(None)))
        for channel, waiting in enumerate(self._waiting):
            p = resample(waiting[window], source, target)
            self._out[channel : channel + 1, z] = quantised(p)[None]
        self.written = z.stop
        if self.written < self._grid.shape[0]:
            start = self._need()[0]
            self._waiting = self._waiting[:, start - self._from :].copy()
            self._from = start


def quantised(p: np.ndarray) -> np.ndarray:
    """round(255 p) as uint8; NaN is refused."""
    if np.isnan(p).any():
        raise EnsembleError("a network predicted NaN; its weights or its normalisation do not fit the EM")
    return np.rint(np.clip(p, 0, 1) * 255).astype(np.uint8)


def stored_chunks(job: Job) -> tuple[int, int, int, int]:
    """Chunks of a stored probability array: one class, thin enough to complete soon."""
    return (1, *(min(c, n) for c, n in zip((16, 128, 128), job.stored.shape, strict=True)))
