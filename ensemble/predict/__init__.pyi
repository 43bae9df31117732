from .device import find_device, find_devices, fix_threads, lent_gpu_bytes
from .network_uses import settled_uses
from .pace import time_networks
from .prediction_store import Section, open_prediction, shared_key
from .predictor import Fields, Predictor, found_in_words
from .probabilities import StoredProbabilities
from .runner import Runner
from .scales import is_far_below, refuse_other_scales
from .shared_folder import NEEDED, SURVEYED, SharedPredictions
from .sliding_window import CPU, Network, Output, frame_reader, predict_job
from .stored_sources import open_predictions
from .stored_values import ArrayInMemory, Fractions
from .tissues import tissue_of

__all__ = [
    "CPU",
    "NEEDED",
    "SURVEYED",
    "ArrayInMemory",
    "Fields",
    "Fractions",
    "Network",
    "Output",
    "Predictor",
    "Runner",
    "Section",
    "SharedPredictions",
    "StoredProbabilities",
    "find_device",
    "find_devices",
    "fix_threads",
    "found_in_words",
    "frame_reader",
    "is_far_below",
    "lent_gpu_bytes",
    "open_prediction",
    "open_predictions",
    "predict_job",
    "refuse_other_scales",
    "settled_uses",
    "shared_key",
    "time_networks",
    "tissue_of",
]
