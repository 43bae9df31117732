"""How long work tells a person where it is, without knowing whether there is a terminal."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ensemble.support.machine import peak_memory_bytes

_GIB = 1 << 30
_UNITS: Sequence[tuple[str, int]] = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
SAY_EACH_S = 60


def duration(seconds: float) -> str:
    """The two largest units, such as 3 h 10 min; at least 1 s."""
    whole = max(1, round(seconds))
    largest = next(index for index, (_, size) in enumerate(_UNITS) if whole >= size)
    words = []
    for name, size in _UNITS[largest : largest + 2]:
        count, whole = divmod(whole, size)
        if count:
            words.append(f"{count} {name}")
    return " ".join(words)


class StageClock:
    """A stage's share, time gone and time left, told once a minute to whoever watches no bar.

    ``now`` are seconds of one clock. What was done when the stage was first told of took no time of it.
    """

    def __init__(self, name: str, total: float, now: float) -> None:
        self._name, self._total = name, max(total, 1e-9)
        self._began = self._told = now
        self._first: float | None = None

    def line(self, done: float, what: str, now: float) -> str | None:
        """What to say now, if it is time to."""
        if self._first is None:
            self._first = done
        if now - self._told < SAY_EACH_S:
            return None
        self._told, gone = now, now - self._began
        fresh = done - self._first
        left = f", about {duration(gone * (self._total - done) / fresh)} left" if fresh > 0 else ""
        return f"{self._name}: {done / self._total:.0%}, {duration(gone)} gone{left}{f': {what}' if what else ''}"


class Progress(Protocol):
    """Told of stages, of how far each is, and of what a person should read."""

    def stage(self, name: str, total: float) -> None:
        """A stage of ``total`` units of work begins; the one before it is over."""
        ...

    def at(self, done: float, what: str = "") -> None:
        """``done`` units of the stage are finished; ``what`` is at work."""
        ...

    def say(self, text: str) -> None:
        """A line to be read."""
        ...


class QuietProgress:
    """Tells nobody; keeps the lines it was told to say."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str, total: float) -> None:
        pass

    def at(self, done: float, what: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class StageCost:
    """What a stage took, and the most memory the process had had when it ended."""

    stage: str
    seconds: float
    peak_gib: float


class Costs:
    """A progress that passes everything on and notes when each stage began and ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stages: list[StageCost] = []
        self._open: tuple[str, float] | None = None

    def stage(self, name: str, total: float) -> None:
        self._close()
        self._open = (name, time.monotonic())
        self._progress.stage(name, total)

    def at(self, done: float, what: str = "") -> None:
        self._progress.at(done, what)

    def say(self, text: str) -> None:
        self._progress.say(text)

    def _close(self) -> None:
        if self._open is not None:
            name, began = self._open
            seconds = round(time.monotonic() - began, 2)
            self._stages.append(StageCost(name, seconds, round(peak_memory_bytes() / _GIB, 3)))
            self._open = None

    def stages(self) -> list[StageCost]:
        """The stages so far; the one under way ends."""
        self._close()
        return list(self._stages)
