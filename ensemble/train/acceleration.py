"""A network made ready to be trained fast, or in little memory: compiled, or its blocks computed twice."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ensemble.support import TrainingError
from ensemble.train.spec import TrainingSpec

BLOCKS = (
    # MONAI's MedNeXt and the published one
    *("MedNeXtBlock", "MedNeXtDownBlock", "MedNeXtUpBlock"),
    # UNet, DynUNet, SegResNet, SwinUNETR
    *("ResidualUnit", "Convolution", "UnetBasicBlock", "UnetResBlock", "ResBlock", "SwinTransformerBlock"),
    # nnU-Net
    *("StackedConvBlocks", "BasicBlockD", "BottleneckD"),
)
"""What is small at both ends and large between: names of classes."""

STEPS_THAT_PAY = 5_000
"""Of a training from which on "auto" compiles: compiling takes minutes."""


def accelerate(network: nn.Module, spec: TrainingSpec) -> None:
    """Change how the network computes as the spec asks, and neither what it answers nor its tensors' names.

    Raises TrainingError where the spec wants blocks recomputed and there are none that can be.
    """
    if spec.checkpointing and not recompute_blocks(network):
        raise TrainingError(
            f"{spec.where('checkpointing')}: this {spec.architecture} has no block that can be computed twice (batch"
            " norm would count what it sees twice); use another norm, such as instance, or say checkpointing: false"
        )
    if is_compiled(spec):
        # In place: a wrapper would change the names of its tensors, and is an error where its truth is asked for.
        network.compile(dynamic=False)


def is_compiled(spec: TrainingSpec) -> bool:
    """Whether the spec has its network compiled on this machine."""
    if spec.compile != "auto":
        return spec.compile
    has_compilers = find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))
    return torch.cuda.is_available() and has_compilers and spec.steps >= STEPS_THAT_PAY


def recompute_blocks(network: nn.Module) -> int:
    """Have blocks keep only what they are given, and compute the rest again for the gradients; how many there are."""
    blocks = list(_blocks(network))
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost blocks, without those whose state changes with each pass."""
    if type(module).__name__ in BLOCKS:
        if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            yield module
        return
    for child in module.children():
        yield from _blocks(child)


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, use_reentrant=False)
    return forward(*inputs)
