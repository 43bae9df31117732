"""Functions that tests have done as tasks, in whatever process."""

import os
import signal
import threading
import time
from pathlib import Path

from ensemble.engine import tell
from ensemble.support import VolumeError


def double(number: int) -> int:
    return 2 * number


def fails(line: str) -> None:
    raise VolumeError(line)


def who() -> tuple[int, int]:
    """The process and the thread."""
    return os.getpid(), threading.get_ident()


def killed_at_first(times: int, folder: str) -> int:
    """Which attempt this is; the first ones are killed."""
    attempt = 1 + len(os.listdir(folder))
    Path(folder, str(attempt)).touch()
    if attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def tells(*news: object) -> None:
    for one in news:
        tell(one)


def goes_on_until_told(folder: str) -> str:
    """Works, and tells so, until it may not; notes that in the folder."""
    Path(folder, "begun").touch()
    try:
        while True:
            tell("at work")
            time.sleep(0.01)
    except InterruptedError:
        Path(folder, "stopped").touch()
        raise


def once_begun(folder: str, line: str) -> None:
    """Fails as soon as another has begun."""
    while not Path(folder, "begun").exists():
        time.sleep(0.01)
    raise VolumeError(line)


def tells_slowly(*news: object) -> None:
    for one in news:
        tell(one)
        time.sleep(1.1)
