"""A specialist, from a spec to a registered model."""

from ensemble.train.preparation import is_helper
from ensemble.train.spec import TrainingSpec, load_spec
from ensemble.train.training import train

__all__ = [
    "TrainingSpec",
    "is_helper",
    "load_spec",
    "train",
]
