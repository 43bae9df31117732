from .front_door import ArrayOnGrid, OpenSubmission, Registry, build, check, open, plan, score, tune
from .plan import Request, load_recipe
from .tune import TuningTask

__version__: str

__all__ = [
    "ArrayOnGrid",
    "OpenSubmission",
    "Registry",
    "Request",
    "TuningTask",
    "__version__",
    "build",
    "check",
    "load_recipe",
    "open",
    "plan",
    "score",
    "tune",
]
