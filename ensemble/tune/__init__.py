"""Choosing by the official score: routes, and weights to average."""

from ensemble.tune.soup import AveragingOptions, Soup, Validation, average_checkpoints
from ensemble.tune.tuning import Tuned, TuningTask, tune

__all__ = [
    "AveragingOptions",
    "Soup",
    "Tuned",
    "TuningTask",
    "Validation",
    "average_checkpoints",
    "tune",
]
