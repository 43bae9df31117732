"""Ways to spoil a good submission by hand."""

from collections.abc import Callable
from pathlib import Path

from tests.support.small_submission import checked, edit, good, rewrite


def as_dtype(name: str, dtype: str) -> Callable[[Path], None]:
    return lambda root: rewrite(root, name, good()[name].astype(dtype))


def metadata(name: str, **changes) -> Callable[[Path], None]:
    return lambda root: edit(root / name, **changes)


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text)


def the_only_fault_is(root: Path, expected: str) -> None:
    """The check of a submission's zip finds one fault, told in a line that begins so."""
    report = checked(root)
    assert len(report.faults) == 1 and not report.ok
    assert report.faults[0].startswith(expected)
    assert "\n" not in report.faults[0]
