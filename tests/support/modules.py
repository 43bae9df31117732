"""Modules of this project as a new process meets them: not yet imported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_anew(*packages: str) -> Iterator[None]:
    """Inside, whatever is imported of the packages is made anew; afterwards those from before are back."""
    before = {name: sys.modules[name] for name in _modules_of(packages)}
    forget(*packages)
    try:
        yield
    finally:
        forget(*packages)
        sys.modules.update(before)


def forget(*packages: str) -> None:
    for name in _modules_of(packages):
        del sys.modules[name]


def _modules_of(packages: tuple[str, ...]) -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in packages]
