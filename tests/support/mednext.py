"""A MedNeXt whose norms are not the identity."""

import torch

from registry import networks


def build(seed: int = 0, architecture: str = "MedNeXtV1", **arguments):
    torch.manual_seed(seed)
    network = networks.build(architecture, {"out_channels": 1, **arguments})
    with torch.no_grad():  # the norms begin as the identity, which would hide what is exchanged
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()
