"""A network on a device: from EM patches to probabilities, averaged over augmentations."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import nn

from ensemble.plan import Job, Precision, patches_per_pass
from registry import Card


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

    def patch_s(self) -> float:
        """Seconds that a patch takes, augmentations too, once the first pass has paid for what only it does."""
        patches = torch.zeros((self.batch_size(), *self.card.patch_voxels))
        self(patches).cpu()
        began = time.perf_counter()
        self(patches).cpu()  # waits for the device
        return (time.perf_counter() - began) / self.batch_size()

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, channels, z, y, x) of normalised patches (B, z, y, x), averaged over augmentations."""
        inputs = patches.to(self.device).unsqueeze(1)
        turns = list(_turns(self.tta))
        with torch.inference_mode(), self._autocast():
            total = self._turned(turns[0], inputs)
            for turn in turns[1:]:
                total = total + self._turned(turn, inputs)
        return total if len(turns) == 1 else total / len(turns)

    def _turned(self, turn: "_Turn", inputs: torch.Tensor) -> torch.Tensor:
        return turn.undo(self._activated(self.network(turn.do(inputs))))

    def _activated(self, outputs: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        if self.card.activation == "sigmoid":
            return torch.sigmoid(self._wanted(outputs))
        if self.card.activation == "softmax":
            return self._wanted(torch.softmax(outputs, dim=1))
        return self._wanted(outputs)

    def _wanted(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs if self.channels == tuple(range(outputs.shape[1])) else outputs[:, self.channels]

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
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
        z, y, x = order
        yield _Turn((z, y, x), tuple(2 + axis for axis, on in enumerate(flip) if on))
