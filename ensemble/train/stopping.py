"""A training that a cluster asks to end soon: it is saved at its next step, and goes on from there another time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ensemble.support import TrainingStopped

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""What SLURM, LSF and Kubernetes send before a walltime, or before a place is given to somebody else."""


class StopRequest:
    """Whether a training was asked to end soon, and by which signal. Only the first is heard.

    While there are ``steps`` it is for them to end, at the next of them; at any other time the signal itself raises
    TrainingStopped.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.signal: str | None = None
        self._in_steps = False

    def listen(self) -> None:
        """Hear signals; those of a program's main thread, since no other hears any."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._hear)

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Leave it to the next step to end."""
        before, self._in_steps = self._in_steps, True
        try:
            yield
        finally:
            self._in_steps = before

    def stopped(self, step: int) -> TrainingStopped:
        """What to raise where the state after ``step`` has been saved."""
        who = self.signal or "a process beside this one"
        return TrainingStopped(
            f"training of {self._name} stopped after step {step}, as {who} asked; the same command goes on there"
        )

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            return
        self.signal = signal.Signals(number).name
        if not self._in_steps:
            raise TrainingStopped(
                f"training of {self._name} stopped before its next step, as {self.signal} asked;"
                " the same command goes on"
            )


@contextmanager
def stop_request(name: str) -> Iterator[StopRequest]:
    """What listens for signals to the training of that name; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    request = StopRequest(name)
    request.listen()
    try:
        yield request
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_stopping_to_the_parent() -> None:
    """Have a process that serves a training go on when all of its group are sent a signal: it ends with its parent."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
