"""A network on a device: from EM patches to probabilities, averaged over augmentations."""

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product

import torch
from torch import nn

from ensemble.plan import Arithmetic, Job, NetworkUse
from ensemble.support import one_line
from registry import Card

_COMPILED_MOST = 256
"""Networks of one class, on all devices of a process, that may be compiled; beyond it they would run as they are."""

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
        # running statistics may lie beyond what float16 holds
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        kept = [copy.deepcopy(norm.state_dict()) for norm in norms]
        network = network.to(_DTYPES[use.arithmetic])
        for norm, state in zip(norms, kept, strict=True):
            norm.float().load_state_dict(state)
        if use.is_compiled:
            torch._dynamo.config.recompile_limit = _COMPILED_MOST
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            network.compile(mode="reduce-overhead" if use.has_graphs else None)
        return cls(network, job.model.card, _channels(job), job.tta, device, use)

    def for_job(self, job: Job) -> "Runner":
        """The same network for another job of its model."""
        return replace(self, card=job.model.card, channels=_channels(job), tta=job.tta)

    def batch_size(self) -> int:
        """Patches per forward pass."""
        return self.use.patches

    def fault(self) -> str | None:
        """What stands in the way of a first pass, which is when a network is compiled; None where nothing does."""
        try:
            self(torch.zeros((self.use.patches, *self.card.patch_voxels)))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler fails in as many ways as it has parts
            return one_line(error, 120)
        return None

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
        turns = list(_turns(self.tta))
        with torch.inference_mode():
            # made here, so that a compiled network meets tensors of one kind, turned or not
            inputs = torch.empty(
                (len(patches), 1, *patches.shape[1:]), dtype=_DTYPES[self.use.arithmetic], device=self.device
            )
            inputs[:, 0].copy_(patches)
            total = self._turned(turns[0], inputs)
            for turn in turns[1:]:
                total += self._turned(turn, inputs)
            return total if len(turns) == 1 else total / len(turns)

    def _turned(self, turn: "_Turn", inputs: torch.Tensor) -> torch.Tensor:
        turned = turn.do(inputs).contiguous()
        if self.use.is_compiled:
            torch._dynamo.maybe_mark_dynamic(turned, 0)  # one graph for any number of patches
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return turn.undo(self._activated(self.network(turned)))

    def _activated(self, outputs: torch.Tensor) -> torch.Tensor:
        # the next pass of a CUDA graph writes its answer over this one
        outputs = outputs.to(torch.float32, copy=self.use.has_graphs)
        if self.card.activation == "sigmoid":
            return torch.sigmoid(self._wanted(outputs))
        if self.card.activation == "softmax":
            return self._wanted(torch.softmax(outputs, dim=1))
        return self._wanted(outputs)

    def _wanted(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs if self.channels == tuple(range(outputs.shape[1])) else outputs[:, self.channels]


def fix_arithmetic(arithmetic: Arithmetic) -> None:
    """Let CUDA round the factors of products, as TF32 does, only where that is asked for, and add in one order."""
    torch.backends.cudnn.deterministic = True
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
