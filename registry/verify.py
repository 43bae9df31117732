"""Whether a registered model still answers here as it did when it was registered."""

from dataclasses import dataclass

import torch

from registry import networks
from registry.store import ModelVersion, Store
from registry.weights import load_network

LIMIT = 1e-3
"""Probabilities further apart than this are another network's; machines and libraries differ by less than 1e-4."""


@dataclass(frozen=True)
class Verified:
    """How far a replay of the golden input was from the answer stored with the model, in probability."""

    version: ModelVersion
    device: str
    largest: float
    mean: float

    @property
    def holds(self) -> bool:
        return self.largest <= LIMIT


def verify(store: Store, version: ModelVersion, device: torch.device) -> Verified:
    """The version's network, its weights checked bit for bit, on its golden input, beside the stored answer."""
    network = load_network(version.card, store.weights(version)).to(device)
    apart = networks.apart(network, version.card, store.golden(version), device)
    return Verified(version, str(device), float(apart.max()), float(apart.mean()))
