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

from ensemble.errors import EnsembleError
from ensemble.grid import Slices
from ensemble.plan import STORED_PLANES, Job, Precision, patches_per_pass
from ensemble.resample import resample, support
from ensemble.sums import Room, Sink, Stored, Sums
from ensemble.volume import Tissue
from registry.card import Card


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


def fix_threads(count: int) -> None:
    """Let every operation of a network use this many threads: their number changes the last bits."""
    torch.set_num_threads(count)


def predict(
    job: Job,
    run: Callable[[np.ndarray], torch.Tensor],
    batch_size: int,
    read: Callable[[Slices], np.ndarray],
    stored: Stored,
    *,
    done_planes: int = 0,
    progress: Callable[[int, int], None] = lambda patches, planes: None,
    spill_to: Path | None = None,
) -> None:
    """Write the job's probabilities, uint8 on ``job.stored``, from plane ``done_planes`` on.

    ``progress`` hears of patches computed and of planes of ``job.stored`` written for good. Partial sums are held
    in memory, or lie in a file in the folder ``spill_to``. EM is read, and finished planes are carried over and
    written, while the network computes.
    """
    room = Room(spill_to)
    sink = Sink(job, stored, done_planes, room)
    sums = Sums(job, room)
    first = sink.first_plane_needed()
    rows = [start for start in job.starts[0] if start + job.patch[0] > first]
    strips = [(z, y) for z in rows for y in job.starts[1]]
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            ahead = _Ahead(reader, lambda strip: _strip(job, read, *strip), strips)
            taking = None
            for index, z in enumerate(rows):
                for y in job.starts[1]:
                    for count in _add_row(job, run, batch_size, ahead.next(), sums, (z, y)):
                        progress(count, sink.written)
                    sums.row_done()
                if taking is not None:
                    taking.result()
                    progress(0, sink.written)
                final = job.lattice.shape[0] if index + 1 == len(rows) else rows[index + 1]
                taking = writer.submit(sink.take, sums, z, final)
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


def _strip(job: Job, read: Callable[[Slices], np.ndarray], z: int, y: int) -> np.ndarray:
    """The EM under a row of patches."""
    depth, height, _ = job.patch
    return read((slice(z, z + depth), slice(y, y + height), slice(0, job.lattice.shape[2])))


def _add_row(
    job: Job,
    run: Callable[[np.ndarray], torch.Tensor],
    batch_size: int,
    strip: np.ndarray,
    sums: Sums,
    start: tuple[int, int],
) -> Iterator[int]:
    """Add a row of patches; yields how many were added at a time."""
    width, xs = job.patch[2], job.starts[2]
    for begin in range(0, len(xs), batch_size):
        batch = xs[begin : begin + batch_size]
        p = run(np.stack([strip[:, :, x : x + width] for x in batch])).cpu().numpy()
        for one, x in zip(p, batch, strict=True):
            sums.add(one, (*start, x))
        yield len(batch)


def stored_chunks(job: Job) -> tuple[int, int, int, int]:
    """Chunks of a stored probability array: one class, thin enough to complete soon."""
    return (1, *(min(c, n) for c, n in zip((STORED_PLANES, 128, 128), job.stored.shape, strict=True)))
