"""Devices that share the parts of jobs: each takes the next as soon as it is free."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from ensemble.plan import Job
from ensemble.predict.device import fix_threads
from ensemble.predict.runner import Runner

Work = Callable[[Runner], None]


class Crew:
    """Threads, one for each device; each keeps the network it ran last. One device works in the thread that asks.

    ``load`` brings a job's network to a device; ``threads`` work on one operation of a network. ``most_patches``:
    source -> patches a pass that fit, where fewer did than were meant to.
    """

    def __init__(
        self, devices: Sequence[torch.device], threads: int, load: Callable[[Job, torch.device], Runner]
    ) -> None:
        self._load, self._threads = load, threads
        self.most_patches: dict[str, int] = {}
        self._own = threading.local()
        self._loading = threading.Lock()
        self._free: queue.SimpleQueue[torch.device] = queue.SimpleQueue()
        self._stopped = threading.Event()
        for device in devices:
            self._free.put(device)
        self._pool = ThreadPoolExecutor(len(devices), "device", self._settle_in) if len(devices) > 1 else None
        if self._pool is None:
            self._settle_in()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is not None:
            self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=kind is not None)

    def check_goes_on(self) -> None:
        """Raise InterruptedError where another part failed or was interrupted; called now and then by all work."""
        if self._stopped.is_set():
            raise InterruptedError("stopped because another part was")

    def submit(self, job: Job, work: Work) -> Future[None]:
        """Have ``work`` done with the job's network by the next device that is free."""
        if self._pool is not None:
            return self._pool.submit(self._at_work, job, work)
        done: Future[None] = Future()
        self._at_work(job, work)
        done.set_result(None)
        return done

    def _settle_in(self) -> None:
        fix_threads(self._threads)
        self._own.device, self._own.key, self._own.runner = self._free.get(), None, None

    def _at_work(self, job: Job, work: Work) -> None:
        self.check_goes_on()
        key = (job.source, job.model.sha256)
        if self._own.key == key:
            runner = self._own.runner.for_job(job)
        else:
            self._own.key = self._own.runner = None  # the last network makes room before the next is there
            with self._loading:
                runner = self._load(job, self._own.device)
        self._own.key, self._own.runner = key, runner
        work(runner)
