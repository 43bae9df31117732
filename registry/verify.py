"""Whether a registered model still answers here as it did when it was registered."""

from dataclasses import dataclass

import torch

from registry import golden
from registry.store import ModelVersion, Registry
from registry.weights import load_network


@dataclass(frozen=True)
class Verification:
    """How far a replay of the golden patch was from the answer stored with the model, in probability."""

    version: ModelVersion
    device: str
    largest: float
    mean: float

    @property
    def holds(self) -> bool:
        return self.largest <= golden.LIMIT


def verify_model(registry: Registry, version: ModelVersion, device: torch.device) -> Verification:
    """The version's network, its weights checked bit for bit, on its golden patch, beside the stored answer."""
    network = load_network(version.card, registry.weights(version)).to(device)
    stored = registry.golden(version)
    deviation = golden.deviation(network, version.card, stored, device)
    return Verification(version, str(device), float(deviation.max()), float(deviation.mean()))
