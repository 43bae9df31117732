"""Weights: read from what people hold without running any of it, fitted to a network key by key, kept."""

import hashlib
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ensemble.errors import CheckpointError
from registry import networks
from registry.card import Card

CONTAINERS = ("state_dict", "model_state_dict", "network_weights", "model")
LISTED = 5
_ZIP = b"PK\x03\x04"
# What torch.load raises, beside the two kinds it documents, when bytes are not what they should be.
_GARBLED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Tensors:
    """What a checkpoint holds under ``keys``: nothing of it has been executed.

    ``lightning`` says that the keys are those of a LightningModule: a network and whatever else it held.
    """

    path: Path
    values: Mapping[str, Any]
    lightning: bool = False


def read(path: Path) -> Tensors:
    """The weights in a Lightning .ckpt, a state dict (.pt, .pth) or a .safetensors, told apart by content.

    Tensors lie on the CPU, mapped from the file where its format allows. Raises CheckpointError for a file
    that would run code, is damaged, or holds no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {error.strerror}") from error
    if head[8:9] == b"{" and not head.startswith(_ZIP):
        return Tensors(path, _read_safetensors(path))
    return _state_dict(path, _read_pickle(path, zipped=head.startswith(_ZIP)))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file: {_one_line(error)}") from error


def _read_pickle(path: Path, *, zipped: bool) -> Any:
    # torch.load goes by the name where it ends in .safetensors; what is in the file decides here.
    mapped = zipped and path.suffix != ".safetensors"
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is refused below
            return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, error, zipped=zipped)) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: refused: a TorchScript program carries code; save only its state_dict()"
            ) from error
        raise CheckpointError(_damaged(path, error)) from error
    except _GARBLED as error:
        raise CheckpointError(_damaged(path, error)) from error


def _unsafe(path: Path, error: pickle.UnpicklingError, *, zipped: bool) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    called = [named[1]] if named else _called(path, zipped=zipped)
    if not called:
        return _damaged(path, error)
    name = _one_line(called[0])
    return f"{path}: refused: unpickling would call {name}, which is not data; save only a state_dict()"


def _called(path: Path, *, zipped: bool) -> list[str]:
    """Names a pickle would look up, torch's own aside, read off its opcodes without following any."""
    names, texts = [], []
    with suppress(*_GARBLED, RuntimeError, zipfile.BadZipFile, zlib.error), ExitStack() as opened:
        stream = opened.enter_context(path.open("rb"))
        if zipped:
            archive = opened.enter_context(zipfile.ZipFile(stream))
            inside = next(name for name in (*archive.namelist(), "data.pkl") if name.endswith("data.pkl"))
            stream = opened.enter_context(archive.open(inside))
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                names.append(argument.replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(texts[-2:]))
            elif "UNICODE" in opcode.name:
                texts.append(argument)
    return [name for name in names if not name.startswith(("torch.", "collections."))]


def _damaged(path: Path, error: BaseException) -> str:
    return f"{path}: not a checkpoint, or damaged: {_one_line(error)}"


def _one_line(error: object, width: int = 200) -> str:
    return " ".join(str(error).split())[:width] or type(error).__name__


def _state_dict(path: Path, content: Any) -> Tensors:
    """The mapping of names to tensors in what a pickle held, at its top or one level down."""
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path}: holds a {kind}, not named weights; save a state_dict()")
    lightning = "pytorch-lightning_version" in content
    for place in (*(content.get(container) for container in CONTAINERS), content):
        if isinstance(place, Mapping) and _has_tensor(place):
            return Tensors(path, {str(key): value for key, value in place.items()}, lightning)
    keys = _listed(content) or "nothing"
    where = f"under {', '.join(CONTAINERS)} or at its top"
    raise CheckpointError(f"{path}: holds no weights {where}, only {keys}; save a state_dict()")


def _has_tensor(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in values.values())


def fit(tensors: Tensors, network: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict with exactly the network's keys, shapes and dtypes, from under the prefix that matches.

    Keys outside the prefix are other attributes of a LightningModule and left out; in any other checkpoint
    they are faults. ``network`` may lie on the meta device. Tensors that the network holds under several
    names need only one of them, and must agree. Raises CheckpointError listing every kind of misfit, or the
    prefixes if several match with different weights, and for NaN or infinity.
    """
    expected = network.state_dict(keep_vars=True)
    twins = _twins(expected)
    prefix = _prefix(tensors, expected, twins)
    found = _under(prefix, tensors.values)
    outside = [] if tensors.lightning else [key for key in tensors.values if not key.startswith(prefix)]
    faults = _faults(expected, found, outside, twins)
    if faults:
        raise CheckpointError(
            f"{tensors.path}: these are not the weights of the card's {type(network).__name__}: {faults};"
            " correct the card's architecture and arguments, or give the checkpoint they describe"
        )
    _check_twins(tensors.path, found, twins)
    # Twins share one converted tensor, so that saving can tell that they are one.
    first = {key: next(name for name in twins[key] if name in found) for key in expected}
    converted = {name: found[name].detach().to(expected[name].dtype) for name in set(first.values())}
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


def _prefix(tensors: Tensors, expected: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]) -> str:
    """The prefix under which the checkpoint's keys are the network's, else the one with most of them."""
    counts: Counter[str] = Counter()
    for key in tensors.values:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in expected:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    exact = [prefix for prefix in counts if _is_exact(prefix, tensors.values, expected, twins)]
    if len(exact) > 1 and not _same_under(exact, tensors.values):
        names = ", ".join(repr(prefix) for prefix in sorted(exact))
        raise CheckpointError(
            f"{tensors.path}: holds this network more than once, with different weights, under {names};"
            " save the state_dict() of the one you mean"
        )
    return min(exact or counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix), default="")


def _is_exact(
    prefix: str, values: Mapping[str, Any], expected: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]
) -> bool:
    names = _under(prefix, values).keys()
    return names <= expected.keys() and all(not names.isdisjoint(twins[key]) for key in expected)


def _same_under(prefixes: list[str], values: Mapping[str, Any]) -> bool:
    first, *others = (_under(prefix, values) for prefix in prefixes)
    return all(
        other.keys() == first.keys() and all(_equal(other[key], first[key]) for key in first) for other in others
    )


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and torch.equal(a, b)


def _faults(
    expected: Mapping[str, torch.Tensor],
    found: Mapping[str, Any],
    outside: Iterable[str],
    twins: Mapping[str, tuple[str, ...]],
) -> str:
    """All that is missing, unexpected or of another shape, counted and its first few named; "" if nothing."""
    differences = [_difference(key, found[key], expected[key]) for key in expected if key in found]
    kinds = {
        "missing": [key for key in expected if not any(name in found for name in twins[key])],
        "unexpected": [*(key for key in found if key not in expected), *outside],
        "of another shape or type": [text for text in differences if text],
    }
    return ", ".join(f"{len(keys)} {kind} ({_listed(keys)})" for kind, keys in kinds.items() if keys)


def _difference(key: str, value: Any, expected: torch.Tensor) -> str | None:
    if not isinstance(value, torch.Tensor):
        return f"{key}: a {type(value).__name__}"
    if value.shape != expected.shape:
        return f"{key}: {list(value.shape)} where the network has {list(expected.shape)}"
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if not plain or value.is_floating_point() != expected.is_floating_point():
        return f"{key}: {value.layout} {value.dtype} on {value.device} where the network has {expected.dtype}"
    return None


def _listed(keys: Iterable[str]) -> str:
    # Names in a file are whatever its author, or a flipped bit, made them.
    keys = [_one_line(repr(str(key))[1:-1]) for key in keys]
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more


def _check_twins(path: Path, found: Mapping[str, Any], twins: Mapping[str, tuple[str, ...]]) -> None:
    for names in set(twins.values()):
        present = [name for name in names if name in found]
        for name in present[1:]:
            if not _equal(found[name], found[present[0]]):
                raise CheckpointError(
                    f"{path}: {present[0]} and {name} are one tensor in the network but differ in the file;"
                    " save it anew from the network"
                )


def _check_finite(path: Path, fitted: Mapping[str, torch.Tensor]) -> None:
    bad = [key for key, value in fitted.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{path}: NaN or infinity in {len(bad)} of {len(fitted)} tensors ({_listed(bad)});"
            " take a checkpoint from before training diverged"
        )


def save(state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(kept, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot write the weights: {_one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str) -> None:
    """Raise CheckpointError unless the file is there and its SHA-256 is ``expected``."""
    try:
        actual = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the weights: {error.strerror}") from error
    if actual != expected:
        raise CheckpointError(
            f"{path}: damaged or exchanged: its sha256 is {actual[:12]}…, registered was {expected[:12]}…;"
            " register the checkpoint again"
        )


def load_network(card: Card, path: Path) -> nn.Module:
    """The card's network with the weights in ``path``, in eval mode, asking for no gradients.

    Raises CheckpointError if the file is not, bit for bit, the one registered (where the card knows its
    sha256) or does not fit the card's network.
    """
    if card.sha256 is not None:
        verify(path, card.sha256)
    arguments = networks.arguments_of(card)
    network = networks.build(card.architecture, arguments)
    network.load_state_dict(fit(read(path), network))
    return network.eval().requires_grad_(requires_grad=False)
