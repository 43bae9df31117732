"""A golden patch and a network's answer to it, by which another machine can tell that it runs the same network."""

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ensemble.support import CardError, CheckpointError
from registry import networks, planes
from registry.card import Card, Where

EDGES_VOXELS = (32, 64, 96, 128)
PROBABILITY_SLACK = 1e-3
MAX_BYTES = 2 << 30
LIMIT = 1e-3
"""Probabilities further apart than this are another network's; machines and libraries differ by less than 1e-4."""


@dataclass(frozen=True)
class Golden:
    """``grey`` uint8 (z, y, x) before normalisation, ``probabilities`` float32 (classes, z, y, x)."""

    grey: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def answer(network: nn.Module, card: Card, grey: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """The network's probabilities (classes, z, y, x) for one patch of EM (z, y, x), taken as a whole image."""
    patch = torch.from_numpy(card.normalisation.apply(grey.astype(np.float32))).to(device)
    with torch.no_grad():
        probabilities = planes.activate(network(patch[None, None]), card.activation)[0].cpu()
    return np.asarray(probabilities.numpy(), np.float32)


def record(network: nn.Module, blank: nn.Module, card: Card, where: Where) -> Golden:
    """The answer of a network in eval mode, on this machine's CPU, to fixed noise no larger than the card's patch.

    ``blank`` is the same network on the meta device. Raises CheckpointError if the answer is not finite, CardError
    if activation "none" is given for outputs that are no probabilities.
    """
    grey = np.random.default_rng(0).integers(0, 256, _shape(blank, card), dtype=np.uint8)
    probabilities = answer(network, card, grey, torch.device("cpu"))
    if not np.isfinite(probabilities).all():
        raise CheckpointError(f"card {card.name}: the network answers a plain patch with NaN or infinity")
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < -PROBABILITY_SLACK or high > 1 + PROBABILITY_SLACK:
        raise CardError(
            f"{where('activation')}: 'none' says that outputs are probabilities, but they reach from"
            f" {low:.3g} to {high:.3g}; use 'sigmoid' or 'softmax'"
        )
    return Golden(grey, probabilities)


def _shape(blank: nn.Module, card: Card) -> tuple[int, ...]:
    for edge in EDGES_VOXELS:
        shape = tuple(min(n, edge) for n in card.patch_voxels)
        if networks.misfit(blank, shape) is None:
            return shape
    return card.patch_voxels


def deviation(network: nn.Module, card: Card, golden: Golden, device: torch.device) -> NDArray[np.float32]:
    """How far the network's answer is from the golden one, by voxel.

    Raises CheckpointError for a golden patch and answer that are not of this network.
    """
    shape = (len(card.classes), *golden.grey.shape)
    if golden.grey.ndim != 3 or golden.grey.dtype != np.uint8 or golden.probabilities.shape != shape:
        raise CheckpointError(f"card {card.name}: its golden answer is not one of this network; register it again")
    if golden.probabilities.dtype != np.float32:
        raise CheckpointError(f"card {card.name}: its golden answer holds no probabilities; register it again")
    try:
        difference: NDArray[np.float32] = np.abs(answer(network, card, golden.grey, device) - golden.probabilities)
        return difference
    except networks.MISFITS as error:
        raise CheckpointError(
            f"card {card.name}: its golden patch does not fit it: {networks.first_line(error)}"
        ) from error


def write(golden: Golden, path: Path) -> None:
    np.savez_compressed(path, input=golden.grey, output=golden.probabilities)


def read(path: Path) -> Golden:
    """The golden patch and answer in a file. Raises CheckpointError for one that is damaged or asks for too much."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("input.npy", "output.npy"):
                _check_size(archive, name)
        with np.load(path, allow_pickle=False) as arrays:
            return Golden(arrays["input"], arrays["output"])
    except (
        *(OSError, ValueError, LookupError, AttributeError, EOFError, RuntimeError, MemoryError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
    ) as error:
        raise CheckpointError(f"{path}: its golden answer is damaged; register the model again") from error


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ValueError for an array whose header claims more than its member holds, or than is sane."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = header(member)
        size = member.tell() + math.prod(shape) * dtype.itemsize
    if size != archive.getinfo(name).file_size or size > MAX_BYTES:
        raise ValueError(f"{name} says that it holds {size:,} bytes")
