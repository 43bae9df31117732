"""The workers of a dask.distributed cluster as an engine, whatever started them: SLURM, LSF, a person."""

import math
import pickle
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ensemble.engine.task import Finished, Task
from ensemble.support import EnsembleError, one_line

if TYPE_CHECKING:
    from distributed import Client, Future

MOST_TRIES = 4
"""How often a task is begun again that the cluster gave up: each time several workers in a row ended under it."""

GPU = "GPU"
"""The resource of workers that run networks: dask worker --resources GPU=1."""

_CONNECTING_S = 30
_LOOKS_EVERY_S = 1.0


class OnDask:
    """A cluster's workers, by the address of its scheduler or the file that this wrote.

    Tasks ``on_gpu`` go to workers with the resource GPU, where any has it when this is entered; else to all. ``hear``
    is called with a task and what it tells, in another thread; ``say`` with what a person should know, a line each.
    """

    def __init__(
        self,
        address: str,
        hear: Callable[[Task, Any], None] = lambda task, news: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._address, self.hear, self._say = address, hear, say
        self._tasks: dict[str, tuple[Task, Future[Any]]] = {}
        self._tries, self._with_gpus = Counter[str](), False
        self._known_workers: dict[str, Any] = {}
        self._looked_s = -math.inf
        self._plugin = f"ensemble-admission-{uuid.uuid4().hex}"  # of several drivers, each has its own

    def __enter__(self) -> Self:
        self._client = _connected(self._address)
        try:
            self._settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _settle(self) -> None:
        from ensemble.engine.admission import NEWS, REFUSED, made_by

        self._expected = made_by()
        self.forget()
        self._client.subscribe_topic(NEWS, self._heard)
        self._client.subscribe_topic(REFUSED, lambda event: self._say(str(event[1])))
        self._admit()
        self._wait_for_workers()

    def _admit(self, device: tuple[Task, str] | None = None) -> None:
        """Have workers sent away that would not do things as this process would."""
        from ensemble.engine.admission import Admission

        try:
            self._client.register_plugin(Admission(self._plugin, self._expected, device, gpus=self._with_gpus))
        except Exception as error:  # whatever stands in the way on a worker, its own words tell
            raise EnsembleError(
                f"--engine {self._address}: its workers cannot take part ({one_line(error, 200)}); install the same "
                "version of this program for scheduler and workers"
            ) from error

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with suppress(Exception):  # a scheduler that is gone keeps nothing
            self.forget()
        with suppress(Exception):
            self._client.unregister_worker_plugin(self._plugin)
        with suppress(Exception):
            self._client.close()

    @property
    def at_once(self) -> int:
        return max(1, sum(int(worker["nthreads"]) for worker in self._workers().values()))

    @property
    def is_idle(self) -> bool:
        return len(self._tasks) < self.at_once

    @property
    def devices(self) -> int:
        """Workers that networks run on."""
        workers = self._workers().values()
        return max(1, sum(GPU in worker["resources"] for worker in workers) if self._with_gpus else len(workers))

    def submit(self, task: Task) -> None:
        from ensemble.engine.admission import run_task

        future = self._client.submit(
            run_task,
            pickle.dumps(task),  # or the scheduler unpacks all of it, and packs it again
            self._expected,
            # a scheduler takes tasks of one key for the same, also those of other drivers, which write elsewhere
            key=f"{task.what or task.function}-{task.key}-{uuid.uuid4().hex}",
            resources={GPU: 1} if task.on_gpu and self._with_gpus else None,
            pure=False,
        )
        self._tasks[str(future.key)] = (task, future)
        self._completed.add(future)

    def finished(self) -> Finished:
        from distributed import KilledWorker

        while True:
            future = next(self._completed)
            task, _ = self._tasks.pop(future.key)
            try:
                return Finished(task, future.result())
            except KilledWorker as killed:
                last = getattr(killed.last_worker, "address", killed.last_worker)
            except Exception as error:
                return Finished(task, error=_told(error, self._address))
            future.release()
            self._tries[task.key] += 1
            lost = f"{task.what or task.key}: workers ended under it, one after the other, the last at {last}"
            if self._tries[task.key] == MOST_TRIES:
                fault = f"{lost}; their logs say why, often that memory was too small"
                return Finished(task, error=EnsembleError(fault))
            self._say(f"{lost}; begun again")
            self.submit(task)

    def forget(self) -> None:
        from distributed import as_completed

        self._client.cancel([future for _, future in self._tasks.values()])
        self._tasks, self._completed = {}, as_completed([], loop=self._client.loop)

    def expect_device(self, function: str, *arguments: Any, answer: str) -> None:
        """Send away workers that run networks on another make of device, by what a function answers there."""
        self._admit((Task(function, arguments, "device"), answer))

    def ask(self, function: str, *arguments: Any) -> Any:
        """What a function by name answers on a worker that runs networks, before there is any work."""
        self.submit(Task(function, arguments, "ask", on_gpu=True))
        return self.finished().result()

    def _workers(self) -> dict[str, Any]:
        """Those of the last second: to ask takes the scheduler some milliseconds."""
        if not self._known_workers or time.monotonic() - self._looked_s > _LOOKS_EVERY_S:
            self._known_workers = self._client.scheduler_info()["workers"]
            self._looked_s = time.monotonic()
        return self._known_workers

    def _wait_for_workers(self) -> None:
        if not self._workers():
            self._say(f"no worker has joined {self._address} yet; waiting for the first")
        while not self._workers():
            time.sleep(_LOOKS_EVERY_S)
        self._with_gpus = any(GPU in worker["resources"] for worker in self._workers().values())

    def _heard(self, event: tuple[float, Any]) -> None:
        key, news = event[1]
        for task, _ in list(self._tasks.values()):
            if task.key == key:
                self.hear(task, news)


def _connected(address: str) -> "Client":
    """Raises EnsembleError where there is no scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        raise EnsembleError(
            f"--engine {address}: needs dask.distributed: pip install 'ensemble-submission[cluster]'"
        ) from error
    if "://" not in address and not Path(address).is_file():
        raise EnsembleError(
            f"--engine {address}: there is no such file; start one with dask scheduler --scheduler-file {address}"
        )
    try:
        if "://" in address:
            return Client(address, timeout=_CONNECTING_S)
        return Client(scheduler_file=address, timeout=_CONNECTING_S)
    except (OSError, ValueError, KeyError, TimeoutError) as error:
        raise EnsembleError(
            f"--engine {address}: no scheduler answers ({one_line(error, 120)}); start one with dask scheduler"
        ) from error


def _told(error: BaseException, address: str) -> BaseException:
    """An error as it is where this program raised it; of the cluster, one line."""
    from distributed.client import FutureCancelledError

    if isinstance(error, FutureCancelledError):
        return EnsembleError(f"--engine {address}: its scheduler ended; start it again and run the same command again")
    return error
