"""This machine as an engine: processes for what Python's lock holds up, threads for the devices of networks."""

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from threadpoolctl import threadpool_limits

from ensemble.engine.task import Finished, Task, heard_by
from ensemble.support import EnsembleError, keep_freed_memory

MOST_TRIES = 4
"""How often a task is begun whose process ends under it."""


class Here:
    """Tasks done by ``workers``: processes, or threads of this one; a single thread is the one that asks.

    Several are at work only while they take no more than ``memory_bytes`` together, as they say.

    Those ``on_gpu`` are done by threads of this process, one for each of ``devices``, which ``sit_down`` is called with
    first; a single device works in the thread that asks. ``hear`` is called with a task and what it tells.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        in_processes: bool = False,
        memory_bytes: float = math.inf,
        devices: Sequence[Any] = (),
        sit_down: Callable[[Any], None] = lambda device: None,
        hear: Callable[[Task, Any], None] = lambda task, news: None,
    ) -> None:
        self._workers, self._in_processes = workers, in_processes
        self._devices, self._sit_down, self.hear = list(devices), sit_down, hear
        self._waiting: deque[Task] = deque()
        self._inline: deque[Task] = deque()
        self._ended: SimpleQueue[tuple[Task, Future[Any], Executor]] = SimpleQueue()
        self._memory_bytes, self._under_way, self._tries = memory_bytes, list[Task](), Counter[str]()
        self._stopped = threading.Event()
        self._pool: ProcessPoolExecutor | ThreadPoolExecutor | None = None
        self._on_devices: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if len(self._devices) > 1:
            free: SimpleQueue[Any] = SimpleQueue()
            for device in self._devices:
                free.put(device)
            self._on_devices = ThreadPoolExecutor(len(self._devices), "device", lambda: self._sit_down(free.get()))
        elif self._devices:
            self._sit_down(self._devices[0])
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._stopped.set()
        if self._on_devices is not None:
            self._on_devices.shutdown(cancel_futures=True)
        self._drop_pool(at_once=kind is not None)

    @property
    def at_once(self) -> int:
        return max(1, self._workers, len(self._devices))

    @property
    def is_idle(self) -> bool:
        return not self._inline and len(self._under_way) < self._workers and self._on_devices is None

    def submit(self, task: Task) -> None:
        if task.on_gpu and self._on_devices is not None:
            self._give(task, self._on_devices, self._run)
        elif task.on_gpu or (self._workers <= 1 and not self._in_processes):
            self._inline.append(task)
        else:
            self._waiting.append(task)
            self._begin()

    def finished(self) -> Finished:
        if self._inline and self._ended.empty():
            task = self._inline.popleft()
            try:
                return Finished(task, self._run(task))
            except Exception as error:
                return Finished(task, error=error)
        while True:
            task, future, pool = self._ended.get()
            if not task.on_gpu:
                self._under_way.remove(task)
            fault = _error_of(future)
            if isinstance(fault, BrokenProcessPool):
                if pool is self._pool:
                    self._drop_pool(at_once=True)
                self._begin_again(task)
                fault = self._given_up(task)
                if fault is None:
                    continue
            self._begin()
            return Finished(task, error=fault) if fault is not None else Finished(task, future.result())

    def forget(self) -> None:
        self._waiting.clear()
        self._inline.clear()

    def _run(self, task: Task) -> Any:
        def hear(news: Any) -> None:
            if self._stopped.is_set():
                raise InterruptedError("stopped because another task was")
            self.hear(task, news)

        with heard_by(hear):
            return task.run()

    # -- the pool

    def _begin(self) -> None:
        """Give as many of the waiting tasks to workers as there are of these, and as memory goes."""
        while len(self._under_way) < self._workers and (task := self._next()) is not None:
            self._under_way.append(task)
            if self._in_processes:
                self._pool = self._pool or ProcessPoolExecutor(
                    self._workers, multiprocessing.get_context(_START), initializer=_settle_in, initargs=(os.getcwd(),)
                )
                with _without_main():
                    self._give(task, self._pool, Task.run)
            else:
                self._pool = self._pool or ThreadPoolExecutor(self._workers)
                self._give(task, self._pool, self._run)

    def _next(self) -> Task | None:
        """The first of those waiting that fits beside those at work.

        One that was under way when a process ended goes first and alone: it is known then whether it was its own.
        """
        suspects = [task for task in (*self._under_way, *self._waiting) if self._tries[task.key]]
        room = self._memory_bytes - sum(task.memory_bytes for task in self._under_way)
        for task in suspects or self._waiting:
            if not self._under_way or (task.memory_bytes <= room and not suspects):
                self._waiting.remove(task)
                return task
        return None

    def _give(self, task: Task, pool: Executor, run: Callable[[Task], Any]) -> None:
        try:
            future = pool.submit(run, task)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda ended: self._ended.put((task, ended, pool)))

    def _begin_again(self, task: Task) -> None:
        """A process of a pool ended, and with it the pool: the next one takes what was under way."""
        self._tries[task.key] += 1
        if self._tries[task.key] < MOST_TRIES:
            self._waiting.appendleft(task)
        self._begin()

    def _given_up(self, task: Task) -> EnsembleError | None:
        if self._tries[task.key] < MOST_TRIES:
            return None
        return EnsembleError(
            f"{task.what or task.key}: the process at work on it ended {MOST_TRIES} times, perhaps killed for lack of "
            "memory; lend less with --memory, or have fewer --workers"
        )

    def _drop_pool(self, *, at_once: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((pool._processes or {}).values()) if isinstance(pool, ProcessPoolExecutor) else []
        pool.shutdown(wait=not self._in_processes, cancel_futures=True)
        for process in processes if at_once else ():
            process.kill()


_START = "spawn" if sys.platform == "win32" else "forkserver"
"""Threads hold locks that a forked process would wait for in vain."""


def _settle_in(folder: str) -> None:
    """One thread for each library, an end with the driver, and what a person interrupts is left to it."""
    os.chdir(folder)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    threadpool_limits(1)


def _end_with_driver() -> None:
    """However that ends: the server that forks workers, which is their parent, lives as long as one of them does."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """While this lasts a process that is started does not run the program's main script first.

    Python does so for functions that are defined there; tasks are not, and a script without a guard would begin anew.
    """
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error
