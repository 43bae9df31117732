"""A network on a device: from EM patches to probabilities, averaged over augmentations."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product

import torch
from torch import nn

from ensemble.plan import Arithmetic, Job, NetworkUse
from registry import Card

_DTYPES: Mapping[Arithmetic, torch.dtype] = {
    "32": torch.float32,
    "tf32": torch.float32,
    "16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Runner:
    """A network on a device, from EM patches to probabilities.

    ``network`` has weights and activations of the arithmetic that ``use`` names; what it normalises by is summed up in
    float32 by PyTorch's own layers.
    """

    network: nn.Module
    card: Card
    channels: tuple[int, ...]
    tta: str
    device: torch.device
    use: NetworkUse

    @classmethod
    def of(cls, network: nn.Module, job: Job, device: torch.device, use: NetworkUse) -> "Runner":
        """The network, which is changed for its use, with the channels, augmentation and card of a job."""
        network = network.to(_DTYPES[use.arithmetic])
        if use.is_compiled:
            network.compile(dynamic=False)
        return cls(network, job.model.card, _channels(job), job.tta, device, use)

    def for_job(self, job: Job) -> "Runner":
        """The same network for another job of its model."""
        return replace(self, card=job.model.card, channels=_channels(job), tta=job.tta)

    def batch_size(self) -> int:
        """Patches per forward pass."""
        return self.use.patches

    def patch_s(self) -> float:
        """Seconds that a patch takes, augmentations too, once the first pass has paid for what only it does."""
        patches = torch.zeros((self.batch_size(), *self.card.patch_voxels))
        self(patches).cpu()
        began = time.perf_counter()
        self(patches).cpu()  # waits for the device
        return (time.perf_counter() - began) / self.batch_size()

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, channels, z, y, x) of normalised patches (B, z, y, x), averaged over augmentations."""
        fix_arithmetic(self.use.arithmetic)
        inputs = patches.to(self.device, _DTYPES[self.use.arithmetic]).unsqueeze(1)
        missing = self.use.patches - len(inputs) if self.use.is_compiled else 0
        if missing > 0:  # a compiled network has seen one shape
            inputs = torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])])
        turns = list(_turns(self.tta))
        with torch.inference_mode():
            total = self._turned(turns[0], inputs)
            for turn in turns[1:]:
                total += self._turned(turn, inputs)
        return (total if len(turns) == 1 else total / len(turns))[: len(patches)]

    def _turned(self, turn: "_Turn", inputs: torch.Tensor) -> torch.Tensor:
        return turn.undo(self._activated(self.network(turn.do(inputs).contiguous())))

    def _activated(self, outputs: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        if self.card.activation == "sigmoid":
            return torch.sigmoid(self._wanted(outputs))
        if self.card.activation == "softmax":
            return self._wanted(torch.softmax(outputs, dim=1))
        return self._wanted(outputs)

    def _wanted(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs if self.channels == tuple(range(outputs.shape[1])) else outputs[:, self.channels]


def fix_arithmetic(arithmetic: Arithmetic) -> None:
    """Let CUDA round the factors of products, as TF32 does, only where that is asked for."""
    torch.backends.cudnn.allow_tf32 = arithmetic == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False


def _channels(job: Job) -> tuple[int, ...]:
    return tuple(job.model.card.classes.index(name) for name in job.classes)


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
