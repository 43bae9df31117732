"""Networks of others' packages, compared by numbers that each side makes of names alone.

Their answers are in ``tests/registry/originals.npz``: the original network, built in an environment of its own, was
given ``weights_by_name`` of its state dict and ``patch``; every ``STRIDE``-th voxel of its answer in eval mode is kept.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

STRIDE = 8
ANSWERS = Path(__file__).parents[1] / "registry" / "originals.npz"


def weights_by_name(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Numbers that follow from the name and shape of each tensor, of a size at which deep networks stay tame."""
    return {name: _numbers(name, tuple(shape)) for name, shape in shapes.items()}


def _numbers(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.from_numpy(random.uniform(0.5, 2, shape)).float()
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 4
    offset = 1 if len(shape) == 1 and name.endswith("weight") else 0
    return torch.from_numpy(random.standard_normal(shape, np.float32) * np.float32(inputs**-0.5) + np.float32(offset))


def patch(*shape: int) -> torch.Tensor:
    """A patch (1, 1, …) of noise from 0 to 1."""
    return torch.from_numpy(np.random.default_rng(0).random((1, 1, *shape))).float()


def sampled(answer: torch.Tensor) -> np.ndarray:
    """Every ``STRIDE``-th voxel of an answer (1, C, …)."""
    each = (slice(None, None, STRIDE),) * (answer.ndim - 2)
    return answer[(0, slice(None), *each)].numpy()


def answer_of(name: str) -> np.ndarray:
    """What the original of that name answered."""
    with np.load(ANSWERS) as answers:
        return answers[name]


def deviation(network: torch.nn.Module, name: str, *shape: int) -> float:
    """How far the answer of a network with ``weights_by_name`` is from what the original of that name answered."""
    network.load_state_dict(weights_by_name({key: value.shape for key, value in network.state_dict().items()}))
    with torch.no_grad():
        found = sampled(network.eval()(patch(*shape)))
    return float(np.abs(found - answer_of(name)).max())
