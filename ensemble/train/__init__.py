"""A specialist, from a spec to a registered model."""

from ensemble.train.spec import TrainingSpec, load_spec
from ensemble.train.training import train

__all__ = [
    "TrainingSpec",
    "load_spec",
    "train",
]
