"""Running a network over a crop, a row of patches at a time, and keeping its probabilities.

Planes that no later patch touches are normalised, carried to the stored grid and written, so that memory is
one patch deep whatever the crop's depth (see ``sums``). Probabilities are stored as uint8, round(255 p):
within 1/510.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ensemble.core.grid import Slices
from ensemble.core.resampling import resample, support
from ensemble.plan.plan import ROWS_READ, STORED_PLANES, Job, Precision, patches_per_pass
from ensemble.predict.accumulator import Room, Sink, Stored, Sums
from ensemble.storage.volume import Tissue
from ensemble.support.errors import EnsembleError
from registry.card import Card, Normalisation

_PLANES_READ = 16
"""Planes of EM whose grey values are counted at once, where a network wants its input normalised by them."""


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
        """Patches per forward pass."""
        return patches_per_pass(self.card.patch_voxels, self.device.type)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, channels, z, y, x) of normalised patches (B, z, y, x), averaged over augmentations."""
        inputs = patches.to(self.device).unsqueeze(1)
        total, count = None, 0
        with torch.inference_mode(), self._autocast():
            for turn in _turns(self.tta):
                p = turn.undo(self._activated(self.network(turn.do(inputs))))
                total = p if total is None else total + p
                count += 1
        return total if count == 1 else total / count

    def _activated(self, outputs: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        if self.card.activation == "sigmoid":
            return torch.sigmoid(self._wanted(outputs))
        if self.card.activation == "softmax":
            return self._wanted(torch.softmax(outputs, dim=1))
        return self._wanted(outputs)

    def _wanted(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs if self.channels == tuple(range(outputs.shape[1])) else outputs[:, self.channels]

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


def fix_threads(count: int) -> None:
    """Let every operation of a network use this many threads: their number changes the last bits."""
    torch.set_num_threads(count)


def predict(
    job: Job,
    run: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int,
    read: Callable[[Slices], np.ndarray],
    stored: Stored,
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
    room = Room(spill_to)
    sink = Sink(job, stored, done_planes, room)
    sums = Sums(job, room)
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
    sums: Sums,
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
