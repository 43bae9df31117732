"""From registered checkpoints and a YAML recipe to one consistent challenge submission.

The public names are those of ``__init__.pyi``; each is imported when it is first used, so that ``import ensemble``
waits for nothing.
"""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import lazy_loader

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # also for whoever imports MLflow after this

_load, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]

# Three verbs are also names of folders. Python binds a folder to its parent's name of it as soon as anything in it is
# imported, in place of a function of that name. So here these names always mean the folder, and the folder is made
# callable when it is bound: ``ensemble.build(request)`` and ``from ensemble.build import …`` both work, in any order.
# Types are read from ``__init__.pyi``, where the three are plain functions.
_VERBS_AND_FOLDERS = ("build", "plan", "tune")


class _CallableFolder(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        verb = self.__name__.rpartition(".")[2]
        return getattr(import_module("ensemble.front_door"), verb)(*arguments, **options)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS_AND_FOLDERS:
            value.__class__ = _CallableFolder
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    return import_module(f"ensemble.{name}") if name in _VERBS_AND_FOLDERS else _load(name)
