"""What a worker does of its own: it is admitted if it would leave the same bytes, and tells how far it is."""

import pickle
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from distributed import Reschedule, WorkerPlugin, get_worker
from distributed.core import Status
from distributed.worker import Worker

from ensemble.engine.on_dask import GPU
from ensemble.engine.task import Task, heard_by
from ensemble.support import EnsembleError, code_digest, keep_freed_memory, library_versions, one_line

NEWS, REFUSED = "ensemble-news", "ensemble-refused"
"""Topics that a driver listens to: a task's key and what it tells; why a worker was sent away."""

_TELLS_EVERY_S = 1.0
_LEAVES_AFTER_S = 0.5
_PACKAGES = ("ensemble.build", "ensemble.predict", "registry")


@cache
def made_by() -> dict[str, str]:
    """The code and the libraries that decide what a task leaves; equal where bytes are."""
    return {**{f"the code of {name}": code_digest(name)[:16] for name in _PACKAGES}, **library_versions()}


def unlike(expected: Mapping[str, str]) -> str:
    """What is other here than where these were found; "" where nothing is."""
    found = made_by()
    other = [
        f"{name} is {found.get(name, 'not there')}, not {expected.get(name, 'there')}"
        for name in sorted({*expected, *found})
        if found.get(name) != expected.get(name)
    ]
    return "; ".join(other)


class Admission(WorkerPlugin):
    """Sends away a worker that has other code or other libraries than the driver, as soon as it joins.

    ``device``: also one that runs networks, on another make of device: what asks for it, and the answer expected.
    """

    def __init__(
        self, name: str, expected: Mapping[str, str], device: tuple[Task, str] | None = None, *, gpus: bool = False
    ) -> None:
        self.name = name
        self._expected, self._device, self._gpus = dict(expected), device, gpus

    def setup(self, worker: Worker) -> None:
        keep_freed_memory()
        try:
            fault = unlike(self._expected) or self._other_device(worker)
        except Exception as error:  # what a driver of a GPU raises is of any kind
            fault = one_line(error, 200)
        if fault:
            worker.log_event(
                REFUSED, f"worker {worker.address} is sent away: {fault}; install the driver's versions there"
            )
            # what it says is on its way for a moment
            worker.loop.call_later(_LEAVES_AFTER_S, worker.close, reason=f"ensemble: {fault}")

    def _other_device(self, worker: Worker) -> str:
        if self._device is None or (self._gpus and GPU not in worker.state.total_resources):
            return ""
        task, expected = self._device
        found = task.run()
        return "" if found == expected else f"its device is {found}, that of the others {expected}"


def run_task(sent: bytes, expected: Mapping[str, str]) -> Any:
    """What a pickled task returns, done by the worker that this is called in."""
    if unlike(expected):
        raise Reschedule  # it is being sent away
    task: Task = pickle.loads(sent)
    worker, key, told_s = get_worker(), get_worker().get_current_task(), 0.0

    def hear(news: Any) -> None:
        nonlocal told_s
        state = worker.state.tasks.get(key)
        if worker.status != Status.running or state is None or state.state == "cancelled":
            raise InterruptedError("given up: another worker may be at it")
        if news is None or time.monotonic() - told_s < _TELLS_EVERY_S:
            return
        told_s = time.monotonic()
        worker.log_event(NEWS, (task.key, news))

    with heard_by(hear):
        try:
            return task.run()
        except EnsembleError as error:
            raise type(error)(str(error)) from None  # what caused it may be nothing that can be sent
