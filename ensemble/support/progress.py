"""How long work tells a person where it is, without knowing whether there is a terminal."""

import time
from dataclasses import dataclass
from typing import Protocol

from ensemble.support.machine import peak_memory_bytes

_GIB = 1 << 30


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
