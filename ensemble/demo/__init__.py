"""A synthetic data set with exact truth, and the whole job on it."""

from ensemble.demo.dataset import write_pyramid
from ensemble.demo.demo import prepare_demo, run_demo

__all__ = [
    "prepare_demo",
    "run_demo",
    "write_pyramid",
]
