"""Networks of every architecture, small enough to run in a moment."""

import importlib.util

import pytest
import torch
from torch import nn

from ensemble.support.errors import CheckpointError
from registry import checkpoint, networks, weights
from registry.card import Card

UNET = {"channels": [4, 8], "strides": [2], "out_channels": 2}
DYNUNET = {
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [4, 8, 8, 8],
    "deep_supervision": True,
    "deep_supr_num": 2,
    "out_channels": 2,
}
NNUNET = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
SMALL = {
    "UNet": UNET,
    "DynUNet": DYNUNET,
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "out_channels": 2},
    "SwinUNETR": {"feature_size": 12, "depths": [1, 1, 1, 1], "out_channels": 2},
    "MedNeXtV1": {"init_filters": 4, "deep_supervision": True, "out_channels": 2},
    "PlainConvUNet": {**NNUNET, "n_conv_per_stage": 1, "deep_supervision": True, "out_channels": 2},
    "ResidualEncoderUNet": {**NNUNET, "n_blocks_per_stage": 1, "out_channels": 2},
    "MedNeXt": {"init_filters": 4, "kernel_size": 3, "deep_supervision": True, "out_channels": 2},
    "UNet_2D": {"spatial_dims": 2, "init_filters": 4, "out_channels": 2},
    "UNet_3D": {"init_filters": 4, "trilinear": True, "out_channels": 2},
    "ResNet": {"ngf": 4, "n_blocks": 2, "norm_layer": "batch", "out_channels": 2},
    "ViTVNet": {"img_size": [32, 32, 32], "out_channels": 2},
}
EDGE = {"SwinUNETR": 64, "MedNeXt": 32, "MedNeXtV1": 32, "UNet_3D": 32, "ViTVNet": 32}
HAS_EINOPS = importlib.util.find_spec("einops") is not None


def patch_of(architecture: str) -> tuple[int, ...]:
    """The lengths of a patch, or of a slice, that the small network of this name takes."""
    return (EDGE.get(architecture, 16),) * SMALL[architecture].get("spatial_dims", 3)


def card(**changes) -> Card:
    values = {
        "name": "m",
        "architecture": "UNet",
        "arguments": UNET,
        "classes": ("mito", None),
        "voxel_size_nm": 4,
        "patch_voxels": 16,
        "activation": "sigmoid",
    }
    return Card(**{**values, **changes})


def unet(seed: int = 0, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return networks.build("UNet", {**UNET, **changes})


def refusal(call, *arguments, error=CheckpointError) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def misfit(path, network: nn.Module | None = None) -> str:
    return refusal(weights.fit, checkpoint.read(path), network or unet())


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
