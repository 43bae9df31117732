"""The networks of the challenge's toolkit (cellmap-segmentation-challenge), of which cards name the toolkit's classes.

They are made here of torch's own layers: the packages that define them ask for another data loader, torchvision and
more beside. Tensors have the toolkit's names, so that its checkpoints fit as they are.
"""

from collections.abc import Callable

from torch import nn

from registry.toolkit_resnet import ResNet
from registry.toolkit_unet import UNet_2D, UNet_3D
from registry.toolkit_vitvnet import ViTVNet

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "UNet_2D": UNet_2D,
    "UNet_3D": UNet_3D,
    "ResNet": ResNet,
    "ViTVNet": ViTVNet,
}


def constructor(architecture: str) -> Callable[..., nn.Module]:
    """The network of that name; it takes ``spatial_dims``, ``in_channels`` and ``out_channels`` beside its own."""
    return _NETWORKS[architecture]
