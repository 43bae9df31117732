"""Checkpoints and cards to register, and what a call refuses."""

from pathlib import Path

import pytest
import torch

from ensemble.support.errors import RegistryError
from registry import networks
from registry.card import Card

ARGUMENTS = {"channels": [4, 8], "strides": [2]}


def card(name: str = "mito-l-4nm", **changes) -> Card:
    values = {
        "name": name,
        "architecture": "UNet",
        "arguments": ARGUMENTS,
        "classes": ("mito", None),
        "voxel_size_nm": (4, 4, 3.36),
        "patch_voxels": 16,
        "activation": "sigmoid",
        "trained_on": ("601",),
        "validation": {"mito": 0.8},
    }
    return Card(**{**values, **changes})


def checkpoint(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(networks.build("UNet", {**ARGUMENTS, "out_channels": 2}).state_dict(), path)
    return path


def refusal(call, *arguments, error=RegistryError, **named) -> str:
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)
