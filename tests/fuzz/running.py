"""Running one input after the other, in process, within bounds of time and memory."""

import os
import random
import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ensemble.support import EnsembleError

MAX_S = 20
MAX_BYTES = 2 * 2**30


class HangError(BaseException):
    """One input took longer than MAX_S."""


def seeds(default: int) -> range:
    """As many as FUZZ_INPUTS says, else few enough for every run of the tests."""
    return range(int(os.environ.get("FUZZ_INPUTS", default)))


@contextmanager
def bounded() -> Iterator[None]:
    """HangError after MAX_S, MemoryError beyond MAX_BYTES more than there are now."""

    def hang(*_: object) -> None:
        raise HangError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_BYTES, before[1]))
    signal.alarm(MAX_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcomes(default: int, run: Callable[[random.Random], object]) -> Counter[str]:
    """How many inputs were read and how many refused; AssertionError naming each seed that ended otherwise."""
    counts: Counter[str] = Counter()
    escaped = {}
    for seed in seeds(default):
        try:
            with bounded():
                run(random.Random(seed))
            counts["read"] += 1
        except EnsembleError as error:
            counts["refused"] += 1
            if "\n" in str(error) or len(str(error)) > 1000:
                escaped[seed] = f"its message is not one line: {str(error)[:200]!r}"
        except (Exception, HangError):
            escaped[seed] = "".join(traceback.format_exc().splitlines(keepends=True)[-4:])
    listed = "\n".join(f"seed {seed}: {what}" for seed, what in list(escaped.items())[:20])
    assert not escaped, f"{len(escaped)} of {sum(counts.values()) + len(escaped)} inputs\n{listed}"
    return counts
