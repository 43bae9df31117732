"""Choosing by the official score: routes, and weights to average."""

from ensemble.tune.soup import AveragingOptions, Soup, Validation, average_checkpoints
from ensemble.tune.tuning import Tuned, TuningTask, tune
from ensemble.tune.tuning_plan import TuningPlan, plan_tuning

__all__ = [
    "AveragingOptions",
    "Soup",
    "Tuned",
    "TuningPlan",
    "TuningTask",
    "Validation",
    "average_checkpoints",
    "plan_tuning",
    "tune",
]
