"""Progress on a terminal, and without one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ensemble.cli.console import ERRORS
from ensemble.support import QuietProgress, StageClock, duration, plain_line


class _Clock(ProgressColumn):
    """Of a stage the time gone, and about the time left."""

    def render(self, task: Task) -> Text:
        gone, left = task.finished_time or task.elapsed or 0, task.time_remaining
        ahead = "" if task.finished or left is None else f", about {duration(left)} left"
        return Text(f"{duration(gone)} gone{ahead}")


class _Shown:
    """A bar per stage on stderr; without a terminal a line when each begins, and one a minute."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._clock: StageClock | None = None

    def stage(self, name: str, total: float) -> None:
        self.close()
        name = plain_line(name)
        if not ERRORS.is_terminal:
            ERRORS.print(f"{name} …")
            self._clock = StageClock(name, total, time.monotonic())
        self._task = self._bars.add_task(name, total=max(total, 1e-9), what="")

    def at(self, done: float, what: str = "") -> None:
        what = plain_line(what)
        if self._task is not None:
            self._bars.update(self._task, completed=done, what=what)
        if self._clock is not None and (text := self._clock.line(done, what, time.monotonic())) is not None:
            ERRORS.print(text)

    def say(self, text: str) -> None:
        self._bars.console.print(text)

    def close(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._bars.tasks[-1].total, what="")
            self._task = self._clock = None


@contextmanager
def progress(show: bool = True) -> Iterator[_Shown | QuietProgress]:
    """Shows progress while the work in the block goes on."""
    if not show:
        yield QuietProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        _Clock(),
    )
    with Bars(
        *columns, TextColumn("{task.fields[what]}", markup=False), console=ERRORS, disable=not ERRORS.is_terminal
    ) as bars:
        shown = _Shown(bars)
        yield shown
        shown.close()
