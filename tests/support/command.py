"""The command line in a process of its own, which may stop itself at a moment that a test names.

``python -m tests.support.command PATTERN NUMBER ARGUMENT ...``: when the process is about to put the NUMBERth file that
matches PATTERN in its place, or to open it for writing, it stops as if by SIGSTOP; with an empty PATTERN it never does.
"""

import fnmatch
import os
import signal
import sys

from ensemble.cli import main
from registry import connection
from tests.support.processes import NEVER_S

_WRITING = os.O_WRONLY | os.O_RDWR


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


if __name__ == "__main__":
    pattern, number, *arguments = sys.argv[1:]
    connection.ANSWER_WITHIN_S = NEVER_S  # a busy server is there
    if pattern:
        _stop_at(pattern, int(number))
    sys.exit(main(arguments))
