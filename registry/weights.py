"""Weights: fitted to a network key by key, kept as safetensors, loaded bit for bit."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ensemble.support import CheckpointError, one_line, replacing
from registry import mednext_names, misfits, networks
from registry.card import Card
from registry.checkpoint import Tensors, listed, read
from registry.checksums import check_sha256
from registry.inert_pickle import Unread
from registry.planes import sliced
from registry.weight_choice import equal, unwrapped

MAX_DEPTH = 64
"""Of names; deeper ones are no network's."""

DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def fit(tensors: Tensors, network: nn.Module, channels: int | None = None) -> dict[str, torch.Tensor]:
    """A state dict with exactly the network's keys, shapes and dtypes, from under the prefix that matches.

    What wrappers add to names is left out, and so are keys outside the prefix where they are other attributes of a
    LightningModule; in any other checkpoint those are faults. ``network`` may lie on the meta device; it answers with
    ``channels``, where messages can name them. Tensors that the network holds under several names need only one of
    them, and must agree. Raises CheckpointError listing every kind of misfit, or the prefixes if several match with
    different weights, and for NaN or infinity.
    """
    network = sliced(network)
    expected = network.state_dict(keep_vars=True)
    twins = _twins(expected)
    own_parts = frozenset(part for key in expected for part in key.split("."))
    values = mednext_names.as_named_by(expected, unwrapped(tensors.values, own_parts))
    prefix = _prefix(tensors.path, values, expected, twins)
    network_values = _under(prefix, values)
    outside = [] if tensors.lightning else [key for key in values if not key.startswith(prefix)]
    faults = _faults(expected, network_values, outside, twins)
    if faults:
        raise CheckpointError(
            misfits.in_one_sentence(tensors.path, expected, network_values, channels)
            or f"{tensors.path}: these are not the weights of the card's {type(network).__name__}: {faults};"
            f" {mednext_names.hint(type(network).__name__, faults)}"
            "correct the card's architecture and arguments, or give the checkpoint they describe"
        )
    _check_twins(tensors.path, network_values, twins)
    # Twins share one converted tensor, so that saving can tell that they are one.
    first = {key: next(name for name in twins[key] if name in network_values) for key in expected}
    converted = {name: network_values[name].detach().to(expected[name].dtype) for name in set(first.values())}
    fitted = {key: converted[name] for key, name in first.items()}
    _check_finite(tensors.path, fitted)
    return fitted


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


def _twins(expected: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, ...]]:
    """For each key, all keys under which the network holds the same tensor (DynUNet names most twice)."""
    names = defaultdict(list)
    for key, value in expected.items():
        names[id(value)].append(key)
    return {key: tuple(names[id(value)]) for key, value in expected.items()}


def _prefix(
    path: Path, values: Mapping[str, Any], expected: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]
) -> str:
    """The prefix under which the checkpoint's keys are the network's, else the one with most of them."""
    counts: Counter[str] = Counter()
    for key in values:
        parts = key.split(".", MAX_DEPTH)
        for i in range(len(parts)):
            if ".".join(parts[i:]) in expected:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    needed = len(set(twins.values()))
    whole = [prefix for prefix, count in counts.items() if count >= needed]
    exact = [prefix for prefix in whole if _is_exact(prefix, values, expected, twins)]
    if len(exact) > 1 and not _same_under(exact, values):
        names = ", ".join(repr(prefix) for prefix in sorted(exact))
        raise CheckpointError(
            f"{path}: holds this network more than once, with different weights, under {names};"
            " choose one with ensemble register --weights PREFIX"
        )
    return min(exact or counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix), default="")


def _is_exact(
    prefix: str, values: Mapping[str, Any], expected: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]
) -> bool:
    names = _under(prefix, values).keys()
    return names <= expected.keys() and all(not names.isdisjoint(twins[key]) for key in expected)


def _same_under(prefixes: list[str], values: Mapping[str, Any]) -> bool:
    first, *others = (_under(prefix, values) for prefix in prefixes)
    return all(other.keys() == first.keys() and all(equal(other[key], first[key]) for key in first) for other in others)


def _faults(
    expected: Mapping[str, torch.Tensor],
    values: Mapping[str, Any],
    outside: Iterable[str],
    twins: Mapping[str, tuple[str, ...]],
) -> str:
    """All that is missing, unexpected or of another shape, counted and its first few named; "" if nothing."""
    differences = [_difference(key, values[key], expected[key]) for key in expected if key in values]
    kinds = {
        "missing": [key for key in expected if not any(name in values for name in twins[key])],
        "unexpected": [*(key for key in values if key not in expected), *outside],
        "of another shape or type": [text for text in differences if text],
    }
    return ", ".join(f"{len(keys)} {kind} ({listed(keys)})" for kind, keys in kinds.items() if keys)


def _difference(key: str, value: Any, expected: torch.Tensor) -> str | None:
    if not isinstance(value, torch.Tensor):
        return f"{key}: a {value.kind if isinstance(value, Unread) else type(value).__name__}"
    if value.is_nested or value.dtype not in DTYPES:
        return f"{key}: a tensor of {value.dtype} that no network here has"
    if value.shape != expected.shape:
        return f"{key}: {list(value.shape)} where the network has {list(expected.shape)}"
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if plain and value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"{key}: {value.numel()} values of which the file holds {value.untyped_storage().nbytes()} bytes"
    if not plain or value.is_floating_point() != expected.is_floating_point():
        return f"{key}: {value.layout} {value.dtype} on {value.device} where the network has {expected.dtype}"
    return None


def _check_twins(path: Path, values: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]) -> None:
    for names in set(twins.values()):
        present = [name for name in names if name in values]
        for name in present[1:]:
            if not equal(values[name], values[present[0]]):
                raise CheckpointError(
                    f"{path}: {present[0]} and {name} are one tensor in the network but differ in the file;"
                    " save it anew from the network"
                )


def _check_finite(path: Path, fitted: Mapping[str, torch.Tensor]) -> None:
    bad = [key for key, value in fitted.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{path}: NaN or infinity in {len(bad)} of {len(fitted)} tensors ({listed(bad)});"
            " take a checkpoint from before training diverged"
        )


def save_weights(state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write ``state_dict`` as safetensors: equal weights give equal bytes, and no tensor is there twice."""
    path = Path(path)
    kept: dict[str, torch.Tensor] = {}
    seen = set()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu()
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() == 0 or identity not in seen:
            seen.add(identity)
            # The format refuses views of one storage.
            kept[key] = tensor.clone(memory_format=torch.contiguous_format)
    try:
        with replacing(path) as partial:
            save_file(kept, partial, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot write the weights: {one_line(error, 200)}") from error


def load_network(card: Card, path: Path) -> nn.Module:
    """The card's network with the weights in ``path``, in eval mode, asking for no gradients.

    Raises CheckpointError if the file is not, bit for bit, the one registered (where the card knows its
    sha256) or does not fit the card's network.
    """
    if card.sha256 is not None:
        check_sha256(path, card.sha256)
    blank = networks.blank(card.architecture, networks.arguments_of(card))
    return networks.with_weights(card, fit(read(path), blank))
