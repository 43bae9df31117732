"""Which of the weights in a checkpoint are meant, and their names without what wrappers added to them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ensemble.support import CheckpointError, one_line, suggestion
from registry.inert_pickle import Unread

CONTAINERS = ("state_dict", "model_state_dict", "network_weights", "model", "module")
SETTINGS = ("hyper_parameters", "hparams", "config", "args", "init_args")
WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"})
"""Parts of names by torch.compile, activation checkpointing, sharding, and data-parallel or averaged models."""

_COUNTERS = ("n_averaged",)
_DEPTH = 2
_TOP = ""

Weights = Mapping[str, Any]


def unwrapped(values: Weights, kept: frozenset[str] = frozenset()) -> Weights:
    """``values`` under names without what wrappers add; as they are where that would make two names one.

    ``kept`` are parts that belong to the network itself.
    """
    without = {_unwrapped(key, kept): value for key, value in values.items() if key.rpartition(".")[2] not in _COUNTERS}
    counters = sum(key.rpartition(".")[2] in _COUNTERS for key in values)
    return without if len(without) + counters == len(values) else values


def _unwrapped(key: str, kept: frozenset[str] = frozenset()) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS - kept)


def choose(path: Path, content: Mapping[str, Any], key: str | None) -> Weights:
    """The named tensors under ``key``, a name or the beginning of names; without one, those that can be meant.

    Raises CheckpointError where there are none, and where several networks differ, naming their keys.
    """
    held = dict(_held(content))
    if key is not None:
        return _under(path, held, key)
    known = [name for name in (*CONTAINERS, _TOP) if name in held] or list(held)
    if not known:
        raise _nothing(path, content)
    first = known[0]
    others = [name for name in held if name != first]
    if first not in (*CONTAINERS, _TOP):
        rivals = others
    else:
        shapes = _shapes(held[first])
        rivals = [name for name in others if _shapes(held[name]) == shapes != Counter()]
    rivals = [name for name in rivals if not _same(held[name], held[first])]
    if rivals:
        raise CheckpointError(
            f"{path}: holds different weights under {_listed([first, *rivals])}, such as the last and the averaged"
            " ones; choose with ensemble register --weights KEY"
        )
    return held[first]


def _held(content: Mapping[str, Any]) -> Iterator[tuple[str, Weights]]:
    """What holds tensors, by its key from the top; neither settings nor the attributes of objects are looked into."""
    waiting: list[tuple[str, Mapping[str, Any], int]] = [(_TOP, content, 0)]
    seen: set[int] = set()
    while waiting:
        name, value, depth = waiting.pop(0)
        if any(isinstance(entry, torch.Tensor) for entry in value.values()):
            yield name, value
        if depth == _DEPTH or isinstance(value, Unread):
            continue
        for key, entry in value.items():
            if isinstance(entry, dict) and id(entry) not in seen and (depth or key not in SETTINGS):
                seen.add(id(entry))
                waiting.append((f"{name}.{key}" if name else key, entry, depth + 1))


def _under(path: Path, held: Mapping[str, Weights], key: str) -> Weights:
    if key in held:
        return held[key]
    begin = f"{key.rstrip('.')}."
    for values in held.values():
        found = {
            name: value
            for name, value in values.items()
            if name.startswith(begin) or _unwrapped(name).startswith(begin)
        }
        if found:
            return found
    known = [name or "(the top)" for name in held]
    raise CheckpointError(f"{path}: holds no weights under {key!r}{suggestion(key, known)}")


def _nothing(path: Path, content: Mapping[str, Any]) -> CheckpointError:
    for value in (content, *(content.get(name) for name in CONTAINERS)):
        if isinstance(value, Unread):
            return CheckpointError(f"{path}: holds a whole {one_line(value.kind, 200)}; save only its state_dict()")
    keys = _listed(list(content)) if content else "nothing"
    where = f"under {', '.join(CONTAINERS)} or at its top"
    return CheckpointError(f"{path}: holds no weights {where}, only {keys}; save a state_dict()")


def _shapes(values: Weights) -> Counter[tuple[int, ...]]:
    """Of kernels: averages of weights may come without running statistics."""
    tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
    return Counter(tuple(value.shape) for value in tensors if value.ndim > 1)


def _same(a: Weights, b: Weights) -> bool:
    """Whether all that both hold under a name is equal."""
    first, second = unwrapped(a), unwrapped(b)
    both = first.keys() & second.keys()
    return bool(both) and all(equal(first[key], second[key]) for key in both)


def equal(a: Any, b: Any) -> bool:
    """Whether both are tensors of the same numbers; one that shows few numbers many times equals none."""
    return _is_whole(a) and _is_whole(b) and torch.equal(a, b)


def _is_whole(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def _listed(names: list[str]) -> str:
    shown = [one_line(name, 100) if name else "its top" for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
