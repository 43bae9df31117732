"""Probabilities: computed once and kept, or found where another tool left them."""

from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.pace import time_networks
from ensemble.predict.prediction_store import open_prediction, shared_key
from ensemble.predict.predictor import Fields, Predictor, count_found, found_in_words, tissue_of
from ensemble.predict.probabilities import StoredProbabilities
from ensemble.predict.runner import Runner
from ensemble.predict.scales import is_far_below, refuse_other_scales
from ensemble.predict.shared_folder import NEEDED, SURVEYED, SharedPredictions
from ensemble.predict.sliding_window import Network, Output, frame_reader, predict_job
from ensemble.predict.stored_sources import open_predictions
from ensemble.predict.stored_values import ArrayInMemory, Fractions

__all__ = [
    "NEEDED",
    "SURVEYED",
    "ArrayInMemory",
    "Fields",
    "Fractions",
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
    "is_far_below",
    "open_prediction",
    "open_predictions",
    "predict_job",
    "refuse_other_scales",
    "shared_key",
    "time_networks",
    "tissue_of",
]
