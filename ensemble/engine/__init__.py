"""Where work is done: tasks on this machine's processes and devices, or on the workers of a cluster."""

from ensemble.engine.here import Here
from ensemble.engine.on_dask import OnDask
from ensemble.engine.task import Finished, Task, tell
from ensemble.engine.work import Engine, Work, alone, done, gather

__all__ = ["Engine", "Finished", "Here", "OnDask", "Task", "Work", "alone", "done", "gather", "tell"]
