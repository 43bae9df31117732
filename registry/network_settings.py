"""The network that hyper-parameters in a checkpoint describe, believed where the weights are of it."""

import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from ensemble.support import CardError, CheckpointError
from registry import networks, weights
from registry.card import ARCHITECTURES
from registry.checkpoint import Tensors

_CHANNELS = ("out_channels", "num_classes", "n_classes")
_CHANNELS_IMPLIED = ("spatial_dims", "in_channels", "out_channels", "dimensions")
_GUESSED = ("UNet", "DynUNet")
"""Networks that cannot be built without telling arguments; the others must be named."""

_MAX_VALUES = 256
_MAX_TRIES = 6
_DEPTH = 2


def described_by(tensors: Tensors) -> dict[str, Any]:
    """The card's architecture, arguments and channels; empty where no setting describes the network of the weights."""
    for architecture, arguments, channels in islice(_tries(tensors), _MAX_TRIES):
        if _fits(architecture, {**arguments, "out_channels": channels}, tensors):
            planes = {"planes": "zyx"} if _dimensions(tensors) == 2 else {}
            return {"architecture": architecture, "arguments": arguments, "classes": [None] * channels, **planes}
    return {}


def _tries(tensors: Tensors) -> Iterator[tuple[str, dict[str, Any], int]]:
    for given in mappings(tensors.settings):
        for architecture in _candidates(given):
            arguments = _arguments(architecture, given)
            for channels in _channels(given, tensors.values):
                yield architecture, arguments, channels


def mappings(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings and the mappings in them, each once."""
    waiting, seen = [(settings, 0)], {id(settings)}
    while waiting:
        given, depth = waiting.pop(0)
        yield given
        for value in given.values() if depth < _DEPTH else ():
            if isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((value, depth + 1))


def _candidates(given: Mapping[str, Any]) -> list[str]:
    named = [value.rpartition(".")[2] for value in given.values() if isinstance(value, str)]
    known = [name for name in dict.fromkeys(named) if name in ARCHITECTURES]
    return known or [name for name in _GUESSED if _needed(name) <= given.keys()]


def _needed(architecture: str) -> set[str]:
    parameters = networks.parameters_of(architecture).values()
    return {p.name for p in parameters if p.default is inspect.Parameter.empty} - set(_CHANNELS_IMPLIED)


def _arguments(architecture: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is plain among the settings that have an argument's name."""
    names = [name for name in networks.parameters_of(architecture) if name not in _CHANNELS_IMPLIED]
    budget = iter(range(_MAX_VALUES))
    arguments: dict[str, Any] = {}
    for name in names:
        try:
            arguments |= {name: _plain(given[name], budget)} if name in given else {}
        except ValueError:
            continue
    return arguments


def _plain(value: Any, budget: Iterator[int]) -> Any:
    """A value that YAML can say, tuples as lists. Raises ValueError for any other, or one without end."""
    if next(budget, None) is None:
        raise ValueError("more than any network takes")
    if isinstance(value, list | tuple):
        return [_plain(entry, budget) for entry in value]
    if type(value) is dict:
        return {key: _plain(entry, budget) for key, entry in value.items()}
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int) and abs(value) <= networks.MAX_ARGUMENT:
        return value
    raise ValueError("not a plain value")


def _channels(given: Mapping[str, Any], values: Mapping[str, Any]) -> list[int]:
    """How many channels its answer may have: as a setting says, else as the last bias is long."""
    said = [given[name] for name in _CHANNELS if name in given]
    biases = [value.shape[0] for value in values.values() if isinstance(value, torch.Tensor) and value.ndim == 1]
    found = [n for n in (*said, *biases[-1:]) if type(n) is int and 0 < n <= networks.MAX_CHANNELS]
    return list(dict.fromkeys(found))


def _dimensions(tensors: Tensors) -> int:
    """2 where the largest kernels are those of slices, else 3."""
    ranks = [value.ndim for value in tensors.values.values() if isinstance(value, torch.Tensor)]
    return 2 if max(ranks, default=5) == 4 else 3


def _fits(architecture: str, arguments: Mapping[str, Any], tensors: Tensors) -> bool:
    try:
        weights.fit(tensors, networks.blank(architecture, {**arguments, "spatial_dims": _dimensions(tensors)}))
    except (CardError, CheckpointError):
        return False
    return True
