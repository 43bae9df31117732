"""Probabilities: computed once and kept, or found where another tool left them."""

from ensemble.predict.device import find_device, fix_threads
from ensemble.predict.prediction_store import open_prediction, shared_key
from ensemble.predict.predictor import Fields, Predictor, tissue_of
from ensemble.predict.probabilities import StoredProbabilities
from ensemble.predict.runner import Runner
from ensemble.predict.scales import is_far_below, refuse_other_scales
from ensemble.predict.sliding_window import Network, Output, frame_reader, predict_job
from ensemble.predict.stored_sources import open_predictions
from ensemble.predict.stored_values import ArrayInMemory, Fractions

__all__ = [
    "ArrayInMemory",
    "Fields",
    "Fractions",
    "Network",
    "Output",
    "Predictor",
    "Runner",
    "StoredProbabilities",
    "find_device",
    "fix_threads",
    "frame_reader",
    "is_far_below",
    "open_prediction",
    "open_predictions",
    "predict_job",
    "refuse_other_scales",
    "shared_key",
    "tissue_of",
]
