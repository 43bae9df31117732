"""What a checkpoint tells of a MedNeXt, and the questions that its tensors leave open."""

import re
from typing import Any

import torch

from ensemble.support import CheckpointError
from registry import mednext_names, networks
from registry.checkpoint import Tensors
from registry.network_settings import mappings

_FIRST = re.compile(r"(enc_block_0|enc_stages\.0)\.0\.conv1\.weight$")
_SAID_AS = {"residual": ("do_res", "residual"), "norm": ("norm_type", "norm")}
"""What hyper-parameters call the arguments that no tensor tells."""

_QUESTIONS = {
    "residual": "residual (do_res of the authors' code: false by its class's defaults, true in create_mednext_v1)",
    "norm": "norm (norm_type: group or layer)",
}


def described_by(tensors: Tensors) -> tuple[dict[str, Any], dict[str, str]]:
    """The card's architecture, arguments and channels, and by key what a person must say; nothing of another network.

    Raises CheckpointError for a network of several input channels.
    """
    plain = {k: v for k, v in tensors.values.items() if isinstance(v, torch.Tensor) and not v.is_nested}
    shapes = {key: tuple(value.shape) for key, value in plain.items()}
    prefixes = [key[: match.start()] for key in shapes if (match := _FIRST.search(key))]
    prefixes = [prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")]
    if len(prefixes) != 1:
        return {}, {}
    prefix = prefixes[0]
    named = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    try:
        found = mednext_names.described_by(named)
        channels = named["out_0.conv_out.weight"][1]
        inputs = named["stem.weight"][1]
    except (LookupError, ValueError, ZeroDivisionError):
        return {}, {}
    if channels > networks.MAX_CHANNELS:
        return {}, {}
    if inputs != 1:
        raise CheckpointError(f"{tensors.path}: a network of {inputs} input channels; EM has 1")
    said = {name: value for name in found.guessed if (value := _said(tensors, name)) is not None}
    arguments = {**found.arguments, **found.guessed, **said}
    values = {"architecture": found.architecture, "arguments": arguments, "classes": [None] * channels}
    values |= {"planes": "zyx"} if len(named["stem.weight"]) == 4 else {}
    return values, _questions([name for name in found.guessed if name not in said], arguments)


def _said(tensors: Tensors, name: str) -> Any:
    """What the settings say of an argument, where they say one thing."""
    values = [given[key] for given in mappings(tensors.settings) for key in _SAID_AS[name] if key in given]
    known = (True, False) if name == "residual" else ("group", "layer")
    if not values or any(type(value) is not type(known[0]) or value not in known for value in values):
        return None
    return values[0] if all(value == values[0] for value in values) else None


def _questions(unsaid: list[str], arguments: dict[str, Any]) -> dict[str, str]:
    if not unsaid:
        return {}
    are = "are guesses" if all(arguments[name] is not None for name in unsaid) else "have no likely value"
    what = " and ".join(_QUESTIONS[name] for name in unsaid)
    return {"arguments": f"no tensor tells {what}, which {are}; say what the network was built with"}
