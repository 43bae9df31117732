"""A task: a function by name, plain arguments, and a key; and how far one is, told from inside it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_own = threading.local()


@dataclass(frozen=True, eq=False)
class Task:
    """A function named as "package.module:name", with arguments that can be sent to another process.

    ``key`` names what is computed and what from: two tasks of one key leave the same bytes, so that a task may be done
    twice, by two workers at once. ``on_gpu``: it runs a network. ``what`` is what a person is told of it, and
    ``memory_bytes`` about what it takes.
    """

    function: str
    arguments: tuple[Any, ...]
    key: str
    on_gpu: bool = False
    what: str = ""
    memory_bytes: int = 0

    def run(self) -> Any:
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)(*self.arguments)


@dataclass(frozen=True)
class Finished:
    """A task that ended, with what it returned or raised."""

    task: Task
    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


Hear = Callable[[Any], None]


@contextmanager
def heard_by(hear: Hear) -> Iterator[None]:
    """While this lasts ``tell`` of this thread calls ``hear``."""
    before = getattr(_own, "hear", None)
    _own.hear = hear
    try:
        yield
    finally:
        _own.hear = before


def tell(news: Any) -> None:
    """Called by a task now and then, with what its maker understands; raises InterruptedError where it is to stop."""
    hear: Hear | None = getattr(_own, "hear", None)
    if hear is not None:
        hear(news)
