"""How long work tells a person where it is, without knowing whether there is a terminal."""

import resource
import sys
import time
from typing import Any, Protocol


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


_GIB = 2**30 if sys.platform == "darwin" else 2**20


class Costs:
    """A progress that passes everything on and notes when each stage began and ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stages: list[tuple[str, float, float]] = []
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
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB
            self._stages.append((name, time.monotonic() - began, peak))
            self._open = None

    def stages(self) -> list[dict[str, Any]]:
        """The stages so far: "stage", "seconds", and the process's "peak_gib" when it ended."""
        self._close()
        return [
            {"stage": name, "seconds": round(seconds, 2), "peak_gib": round(peak, 3)}
            for name, seconds, peak in self._stages
        ]
