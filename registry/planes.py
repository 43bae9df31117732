"""A 2D network run over the slices of a patch, so that it answers as a 3D network does."""

import torch
from torch import Tensor, nn

from registry.card import Planes

SLICES = 16
"""Slices that go through the network at once, of each patch of a batch."""

_SMALLEST = 2.0**-24
"""The step of float32 below 1: closer to 0 or 1 than this no probability is told."""


class SlicedNetwork(nn.Module):
    """Outputs (B, C, z, y, x) whose activation is the mean, over ``planes``, of the activated slices across each.

    Across a single axis they are the network's own outputs. Activation "none" means that those are probabilities.
    """

    def __init__(self, network: nn.Module, planes: Planes, activation: str) -> None:
        super().__init__()
        self.network = network
        self._axes = ["zyx".index(axis) + 2 for axis in planes]
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (self._across(axis, x) for axis in self._axes)
        if not others:
            return first
        total = activate(first, self._activation)
        for outputs in others:
            total = total + activate(outputs, self._activation)
        mean = total / len(self._axes)
        if self._activation == "sigmoid":
            return mean.logit(_SMALLEST)
        return mean.clamp_min(_SMALLEST**4).log() if self._activation == "softmax" else mean

    def _across(self, axis: int, x: Tensor) -> Tensor:
        return torch.cat([self._answers(axis, part) for part in torch.split(x, SLICES, dim=axis)], dim=axis)

    def _answers(self, axis: int, part: Tensor) -> Tensor:
        slices = part.movedim(axis, 1)
        answers: Tensor = self.network(slices.flatten(0, 1))
        return answers.reshape(*slices.shape[:2], *answers.shape[1:]).movedim(1, axis)


def sliced(network: nn.Module) -> nn.Module:
    """The network that sees the slices, or ``network`` itself where it sees patches."""
    return network.network if isinstance(network, SlicedNetwork) else network


def activate(outputs: Tensor, activation: str) -> Tensor:
    """Probabilities of a network's outputs (B, C, …), float32."""
    outputs = outputs.float()
    if activation == "sigmoid":
        return outputs.sigmoid()
    if activation == "softmax":
        return outputs.softmax(dim=1)
    return outputs
