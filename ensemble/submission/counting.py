"""What a submission's arrays hold, counted as tasks: by threads here, or by processes that open it too."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Target, is_instance
from ensemble.engine import Engine, Task, Work, done, gather
from ensemble.submission.archive import open_archive
from ensemble.submission.claims import Claims, read_claims
from ensemble.submission.contents import (
    ArrayGroup,
    ArrayTotals,
    ContradictionCount,
    CountedArrays,
    Index,
    LoneArray,
    objects_of,
)
from ensemble.submission.layout import FaultNotes, find_store, open_target
from ensemble.submission.reader import Submission
from ensemble.submission.stored_array import StoredArray

TASK_VOXELS = 1 << 28
"""Of a task, about, in the blocks that it counts."""

_OPENED_MOST = 4

Objects = tuple[NDArray[np.int64], int]
"""The voxels of an array's objects, and how many reach its border."""


@dataclass
class Count:
    """Arrays that are counted together, and what was counted of them so far.

    ``objects``: by array, of those whose masks of 0 and 1 the server splits into objects.
    """

    group: CountedArrays
    totals: dict[str, ArrayTotals] = field(init=False)
    contradictions: ContradictionCount = field(default_factory=ContradictionCount)
    objects: dict[str, Objects] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.totals = {name: ArrayTotals() for name in self.group.arrays}

    def add(self, counted: tuple[dict[str, ArrayTotals], ContradictionCount]) -> None:
        totals, contradictions = counted
        for name, total in totals.items():
            self.totals[name].add(total)
        self.contradictions.add(contradictions)

    def may_have_objects(self, target: Target, name: str) -> bool:
        """Whether an array's objects can be counted: it is of the crop's shape, whole, and of whole numbers."""
        array = self.group.arrays[name]
        fits = array.shape == target.grid.shape and array.dtype.kind != "f"
        return is_instance(name) and fits and not self.totals[name].damaged


def counts_of(target: Target, arrays: Mapping[str, StoredArray], claims: Claims) -> list[Count]:
    """A crop's arrays of its shape together, each of the others alone."""
    unclaimed = claims.unclaimed.get(target.group, frozenset())
    binary = frozenset(name for name in arrays if not is_instance(name))
    fitting = {name: array for name, array in arrays.items() if array.shape == target.grid.shape}
    alone = [Count(LoneArray(name, arrays[name], name in binary)) for name in arrays if name not in fitting]
    if not fitting:
        return alone
    claimed = tuple(name for name in fitting if name not in unclaimed)
    return [Count(ArrayGroup(fitting, binary, claimed)), *alone]


def count_all(
    place: Path, crops: Mapping[Target, Sequence[Count]], engine: Engine, progress: Callable[[int, int], None]
) -> None:
    """Fill in what there is to count of every crop; ``progress`` counts blocks."""
    blocks = sum(len(count.group.blocks) for counts in crops.values() for count in counts)
    counted = 0

    def advance(more: int) -> None:
        nonlocal counted
        counted += more
        progress(counted, blocks)

    advance(0)
    works = (_crop(place, target, counts, advance) for target, counts in crops.items())
    for _ in done(engine, works, most=len(crops)):
        pass


def _crop(place: Path, target: Target, counts: Sequence[Count], advance: Callable[[int], None]) -> Work[None]:
    """Count a crop's blocks, then the objects of its masks; added up in the same order whoever is first."""
    found: dict[tuple[int, Index], tuple[dict[str, ArrayTotals], ContradictionCount]] = {}

    def take(task: Task, of_blocks: list[tuple[dict[str, ArrayTotals], ContradictionCount]]) -> None:
        number, indices = task.arguments[2:]
        found.update({(number, index): one for index, one in zip(indices, of_blocks, strict=True)})
        advance(len(indices))

    yield from gather(
        (
            _task("count_blocks", place, target, number, some)
            for number, count in enumerate(counts)
            for some in _of_a_task(count.group)
        ),
        take,
    )
    for number, index in sorted(found):
        counts[number].add(found[number, index])
    masks = [
        _task("count_objects", place, target, number, name)
        for number, count in enumerate(counts)
        for name, total in count.totals.items()
        if total.highest_id == 1 and count.may_have_objects(target, name)
    ]

    def note(task: Task, objects: Objects) -> None:
        number, name = task.arguments[2:]
        counts[number].objects[name] = objects

    yield from gather(masks, note)


def _task(function: str, place: Path, target: Target, number: int, what: object) -> Task:
    key = f"{function} {place} {target.group} {number} {what}"
    return Task(f"{__name__}:{function}", (place, target, number, what), key, what=function.replace("_", "-"))


def _of_a_task(group: CountedArrays) -> Iterator[list[Index]]:
    indices = list(group.blocks)
    most = max(1, TASK_VOXELS // max(1, group.bytes_per_block))
    return (indices[at : at + most] for at in range(0, len(indices), most))


def count_blocks(
    place: Path, target: Target, number: int, indices: Sequence[Index]
) -> list[tuple[dict[str, ArrayTotals], ContradictionCount]]:
    """What blocks of a crop's arrays hold, those of its ``counts_of`` with this number: a task."""
    group = _opened(place, target)[number].group
    return [group.count(index) for index in indices]


def count_objects(place: Path, target: Target, number: int, name: str) -> Objects:
    """The objects of one of a crop's masks: a task."""
    return objects_of(_opened(place, target)[number].group.arrays[name])


_opening = threading.Lock()


def _opened(place: Path, target: Target) -> list[Count]:
    with _opening:
        status = place.stat()
        return _of_target(place, status.st_mtime_ns, status.st_size, target)


@lru_cache(_OPENED_MOST)
def _of_target(place: Path, mtime_ns: int, size: int, target: Target) -> list[Count]:
    submission, claims = _store(place, mtime_ns, size)
    return counts_of(target, open_target(submission, target, FaultNotes(place)), claims)


@lru_cache(1)
def _store(place: Path, mtime_ns: int, size: int) -> tuple[Submission, Claims]:
    notes = FaultNotes(place)
    submission = find_store(open_archive(place), notes)
    return submission, read_claims(submission, notes)


def forget_opened() -> None:
    """Close what tasks opened in this process."""
    with _opening:
        _of_target.cache_clear()
        _store.cache_clear()
