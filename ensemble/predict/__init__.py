"""Probabilities: computed once and kept, or found where another tool left them."""

from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.pace import time_networks
from ensemble.predict.prediction_store import open_prediction, shared_key
from ensemble.predict.predictor import Fields, Predictor, count_found, found_in_words, tissue_of
from ensemble.predict.probabilities import ArrayInMemory, StoredProbabilities, open_probabilities
from ensemble.predict.runner import Runner
from ensemble.predict.shared_folder import NEEDED, SURVEYED, SharedPredictions
from ensemble.predict.sliding_window import Network, Output, frame_reader, predict_job

__all__ = [
    "NEEDED",
    "SURVEYED",
    "ArrayInMemory",
    "Fields",
    "Network",
    "Output",
    "Predictor",
    "Runner",
    "SharedPredictions",
    "StoredProbabilities",
    "count_found",
    "find_device",
    "fix_threads",
    "found_in_words",
    "frame_reader",
    "open_prediction",
    "open_probabilities",
    "predict_job",
    "shared_key",
    "time_networks",
    "tissue_of",
]
