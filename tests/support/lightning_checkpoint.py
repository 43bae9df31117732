"""A checkpoint as Lightning writes it."""

import torch

from registry import networks


def save_lightning(path, architecture="MedNeXtV1", prefix="model.", settings=None, **arguments) -> None:
    """Weights of a network of these ``arguments``, and the settings a person kept beside them."""
    torch.manual_seed(0)
    network = networks.build(architecture, arguments)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    content = {"pytorch-lightning_version": "2", "state_dict": state, "hyper_parameters": settings or {}}
    torch.save(content, path)
