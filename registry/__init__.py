"""Trained models: what must be known of them, how their weights are read, and where they are kept.

The public names are those of ``__init__.pyi``; each is imported when it is first used, so that a command that only
reads cards waits for neither torch nor MLflow.
"""

import os

import lazy_loader

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported, which happens below here only

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
