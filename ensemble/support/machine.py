"""What this machine lends a process, the limits of its control group respected."""

import ctypes
import math
import os
import platform
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

if sys.platform == "win32":
    import psutil
else:
    import resource

_GROUPS = Path("/sys/fs/cgroup")
_MIB = 1 << 20
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _first_line("cpu.max", "cpu/cpu.cfs_quota_us").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        allowed = min(allowed, math.ceil(int(quota) / int(period)))
    return max(1, allowed)


def memory_bytes() -> int:
    """Memory this process may use."""
    if sys.platform == "win32":
        return int(psutil.virtual_memory().total)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _first_line("memory.max", "memory/memory.limit_in_bytes")
    return min(physical, int(limit)) if limit.isdigit() and int(limit) > _MIB else physical


def peak_memory_bytes() -> int:
    """The most memory this process has had so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def default_memory_bytes() -> int:
    """Half of that: what a build or a scoring stays within unless told otherwise."""
    return memory_bytes() // 2


def has_gpu() -> bool:
    """Whether there seems to be a GPU, told without loading torch."""
    return Path("/dev/nvidiactl").exists() or (platform.system(), platform.machine()) == ("Darwin", "arm64")


def keep_freed_memory() -> None:
    """Have this process use memory it freed again, up to half a GiB, where it would ask for new pages each time.

    Arrays of a tile come and go by the thousand; pages that are given back must be zeroed again. Only glibc is told.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 * _MIB)


def end_with_parent() -> None:
    """Have this process killed when its parent ends, however that does. Only Linux is told."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _first_line(*names: str) -> str:
    """Of the first of the control group's files that is there; the namespace's root is the process's group."""
    for name in names:
        try:
            return (_GROUPS / name).read_text().splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return ""


def in_threads(workers: int, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items; at most two items a worker are under way."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
