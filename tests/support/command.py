"""The command line in a process of its own, which may stop itself at a moment that a test names."""

import fnmatch
import os
import signal
import sys
from collections.abc import Callable

from tests.support.processes import NEVER_S, Forked

_WRITING = os.O_WRONLY | os.O_RDWR


def ensemble(*arguments: str, stop_at: str = "", number: int = 1, before: Callable | None = None) -> Forked:
    """The command line as a process, after ``before`` in it; with ``stop_at`` it is returned once it has stopped.

    It stops as if by SIGSTOP when it is about to put the ``number``-th file that matches ``stop_at`` in its place, or
    to open it for writing.
    """
    process = Forked(_main, stop_at, number, before, list(arguments))
    if stop_at:
        process.wait_until_stopped()
    return process


def _main(stop_at: str, number: int, before: Callable | None, arguments: list[str]) -> int:
    from ensemble.cli import main
    from registry import server_trouble

    server_trouble.ANSWER_WITHIN_S = NEVER_S  # a busy server is there
    if stop_at:
        _stop_at(stop_at, number)
    if before:
        before()
    return main(arguments)


def _stop_at(pattern: str, number: int) -> None:
    seen: set[str] = set()

    def watch(event: str, arguments: tuple) -> None:
        path = arguments[1] if event == "os.rename" else None
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            path = arguments[0]
        if isinstance(path, str | os.PathLike) and fnmatch.fnmatch(os.fspath(path), f"*/{pattern}"):
            seen.add(os.fspath(path))
            if len(seen) == number:
                seen.update("*" * n for n in range(number + 2))  # only once
                os.kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(watch)
