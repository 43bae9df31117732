"""Which network of the challenge's toolkit a checkpoint is of, by the names and shapes of its tensors."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ensemble.support import CheckpointError
from registry import networks
from registry.checkpoint import Tensors
from registry.toolkit_unet import WIDTH

Shapes = Mapping[str, Sequence[int]]

_UNET, _RESNET, _VITVNET = "inc.double_conv.0.weight", "model.0.weight", "transformer.embeddings.position_embeddings"
_RESNET_PADDED = "model.1.weight"
_BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.weight$")
_LAYER = re.compile(r"model\.(\d+)\.weight$")


@dataclass(frozen=True)
class Description:
    """The card's values, and by key what a person must say."""

    values: dict[str, Any] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)


_Describe = Callable[[Shapes], tuple[Description, int, int]]
"""A description, and the channels that go in and come out."""


def described_by(tensors: Tensors) -> Description:
    """The network of the toolkit that the tensors are of, under any prefix; nothing for another.

    Raises CheckpointError for a network of several input channels.
    """
    shapes = {
        key: tuple(value.shape)
        for key, value in tensors.values.items()
        if isinstance(value, torch.Tensor) and not value.is_nested
    }
    for kind, describe in ((_VITVNET, _vitvnet), (_UNET, _unet), (_RESNET, _resnet), (_RESNET_PADDED, _resnet)):
        for prefix in [key.removesuffix(kind) for key in shapes if key.endswith(kind)]:
            if prefix and not prefix.endswith("."):
                continue
            named = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
            found = _checked(tensors, describe, named)
            if found.values:
                return found
    return Description()


def _checked(tensors: Tensors, describe: _Describe, named: Shapes) -> Description:
    """What a description says, where the network it describes has exactly these names and shapes."""
    try:
        found, inputs, channels = describe(named)
    except (LookupError, ValueError, ZeroDivisionError):
        return Description()
    if not 0 < channels <= networks.MAX_CHANNELS:
        return Description()
    dimensions = 2 if "planes" in found.values else 3
    arguments = {**found.values["arguments"], "spatial_dims": dimensions, "in_channels": inputs}
    blank = networks.blank(found.values["architecture"], {**arguments, "out_channels": channels})
    if {key: tuple(value.shape) for key, value in blank.state_dict().items()} != dict(named):
        return Description()
    if inputs != 1:
        raise CheckpointError(f"{tensors.path}: a network of {inputs} input channels; EM has 1")
    found.values["classes"] = [None] * channels
    return found


def _unet(named: Shapes) -> tuple[Description, int, int]:
    first = named[_UNET]
    dimensions = len(first) - 2
    arguments: dict[str, Any] = {"trilinear": "up1.up.weight" not in named}
    arguments |= {} if first[0] == WIDTH else {"init_filters": first[0]}
    values = {"architecture": f"UNet_{dimensions}D", "arguments": arguments}
    return _with_planes(values, {}, dimensions), first[1], named["outc.conv.weight"][0]


def _with_planes(values: dict[str, Any], asks: dict[str, str], dimensions: int) -> Description:
    if dimensions == 2:
        return Description({**values, "planes": "zyx"}, asks)
    return Description(values, asks)


def _vitvnet(named: Shapes) -> tuple[Description, int, int]:
    tokens = named[_VITVNET][1]
    edge = round(tokens ** (1 / 3))
    if edge**3 != tokens:
        raise ValueError("not a cube; its three lengths cannot be told")
    size = [32 * edge] * 3
    values = {"architecture": "ViTVNet", "arguments": {"img_size": size}, "patch_voxels": size}
    first = named["transformer.embeddings.hybrid_model.inc.double_conv.0.weight"]
    asks = {"arguments": f"img_size, were it no cube, would be another with the same {tokens} positions"}
    return Description(values, asks if tokens > 1 else {}), first[1], named["reg_head.0.weight"][0]


def _resnet(named: Shapes) -> tuple[Description, int, int]:
    is_padded = _RESNET not in named
    numbers = sorted(int(match[1]) for key in named if (match := _LAYER.fullmatch(key)))
    convolutions = [n for n in numbers if len(named[f"model.{n}.weight"]) > 1]
    first, last = named[f"model.{convolutions[0]}.weight"], named[f"model.{convolutions[-1]}.weight"]
    places = [(int(match[1]), int(match[2])) for key in named if (match := _BLOCK.fullmatch(key))]
    kernels = [n for block, n in places if len(named[f"model.{block}.conv_block.{n}.weight"]) > 1]
    step = max(kernels) - min(kernels)
    arguments = {
        "ngf": first[0],
        "norm_layer": "batch" if f"model.{convolutions[0] + 1}.running_mean" in named else "instance",
        "use_dropout": step == (5 if is_padded else 4),
        "n_blocks": len({block for block, _ in places}),
        "padding_type": "reflect" if is_padded else "zeros",
        "activation": "ReLU",
        "n_downsampling": (len(convolutions) - 2) // 2,
    }
    other = "replicate" if is_padded else "valid, which is not supported"
    asks = {
        "arguments": f"no tensor tells padding_type ({arguments['padding_type']}, or {other}) and activation (ReLU"
        " unless said); both are the toolkit's most likely; say what the network was built with"
    }
    values = {"architecture": "ResNet", "arguments": arguments}
    return _with_planes(values, asks, len(first) - 2), first[1], last[0]
