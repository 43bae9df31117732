"""Whether a submission is one the challenge can score: format, completeness, values, consistency.

Everything is read from the zip alone. The check goes on after every fault, so that one run names them all.
"""

import math
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.core import classes as taxonomy
from ensemble.core.contradictions import ClassChange, Violations
from ensemble.core.manifest import Target
from ensemble.methods.sizes import size_histogram
from ensemble.submission.archive import open_archive
from ensemble.submission.check_report import (
    GENEROUS_TRUTH_OBJECTS,
    NOTABLE_CHANGE,
    ArrayPlace,
    BrokenRelation,
    CheckReport,
    DecodedClass,
)
from ensemble.submission.claims import Claims, read_claims
from ensemble.submission.contents import ArrayGroup, ArrayTotals, ContradictionCount, Index, objects_of
from ensemble.submission.layout import FaultNotes, find_store, open_extras, open_target
from ensemble.submission.stored_array import StoredArray
from ensemble.submission.writer import OnProgress

_MAX_LINES_PER_ARRAY = 20
_MAX_EXAMPLES = 3
_MAX_THREADS = 8
_MEMORY_BYTES = 2**31


@dataclass
class _Part:
    """Arrays that are counted together, and what was counted of them so far."""

    together: ArrayGroup
    totals: dict[str, ArrayTotals]
    contradictions: ContradictionCount = field(default_factory=ContradictionCount)

    def add(self, counted: tuple[dict[str, ArrayTotals], ContradictionCount]) -> None:
        totals, contradictions = counted
        for name, total in totals.items():
            self.totals[name].add(total)
        self.contradictions.add(contradictions)


def check(path: Path, targets: Sequence[Target], progress: OnProgress = lambda done, total: None) -> CheckReport:
    """What is in, and what is wrong with, the submission (a zip or an unzipped folder) for ``targets``.

    ``progress`` counts blocks. Raises SubmissionError only when there is nothing to look into: no file, not
    a zip, a zip cut short.
    """
    members = open_archive(path)
    try:
        notes = FaultNotes(members.place)
        submission = find_store(members, notes)
        claims = read_claims(submission, notes)
        crops = {t: _parts(t, open_target(submission, t, notes), claims) for t in targets}
        extras = [_part({array.place: array}) for array in open_extras(submission, targets, notes)]
        _count([*(part for parts in crops.values() for part in parts), *extras], progress)
        arrays = {t.group: _note_arrays(t, parts, claims, notes) for t, parts in crops.items()}
        written = {t.group: _note_contradictions(t, parts, claims, notes) for t, parts in crops.items()}
        for extra in extras:
            _note_damage(extra, notes)
        decoding = _note_decoding({t.group: claims.decoding.get(t.group, {}) for t in targets}, notes)
    finally:
        members.close()
    rows = ((f"{crop}/{name}", row) for crop, table in arrays.items() for name, row in table.items())
    return CheckReport(
        faults=tuple(notes.faults),
        warnings=tuple(notes.warnings),
        empty=tuple(place for place, row in rows if not row["nonzero_voxels"]),
        arrays=arrays,
        violations={crop: broken.voxels for crop, broken in written.items()},
        violations_before={crop: broken.voxels for crop, broken in claims.before.items() if crop in written},
        relations=_relations([broken for crop, broken in claims.before.items() if crop in written], written.values()),
        decoding=decoding,
    )


def _part(arrays: Mapping[str, StoredArray], binary: Iterable[str] = (), claimed: Iterable[str] = ()) -> _Part:
    return _Part(ArrayGroup(arrays, frozenset(binary), tuple(claimed)), {name: ArrayTotals() for name in arrays})


def _parts(target: Target, arrays: Mapping[str, StoredArray], claims: Claims) -> list[_Part]:
    """A crop's arrays of its shape together, each of the others alone."""
    unclaimed = claims.unclaimed.get(target.group, frozenset())
    binary = [name for name in arrays if not taxonomy.is_instance(name)]
    fitting = {name: array for name, array in arrays.items() if array.shape == target.grid.shape}
    alone = [_part({name: arrays[name]}, binary) for name in arrays if name not in fitting]
    claimed = [name for name in fitting if name not in unclaimed]
    return [*([_part(fitting, binary, claimed)] if fitting else []), *alone]


def _count(parts: Sequence[_Part], progress: OnProgress) -> None:
    """Fill in the totals, in an order that does not depend on threads."""
    blocks = [(part, index) for part in parts for index in part.together.blocks]
    largest = max((part.together.bytes_per_block for part in parts), default=1)
    threads = max(1, min(os.cpu_count() or 1, _MAX_THREADS, _MEMORY_BYTES // largest))
    progress(0, len(blocks))
    for done, (part, counted) in enumerate(_counted(blocks, threads), start=1):
        part.add(counted)
        progress(done, len(blocks))


def _counted(
    blocks: Sequence[tuple[_Part, Index]], threads: int
) -> Iterator[tuple[_Part, tuple[dict[str, ArrayTotals], ContradictionCount]]]:
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting = deque((part, pool.submit(part.together.count, index)) for part, index in blocks)
            while waiting:
                part, future = waiting.popleft()
                yield part, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _note_arrays(
    target: Target, parts: Sequence[_Part], claims: Claims, notes: FaultNotes
) -> dict[str, dict[str, Any]]:
    """Rows of the report, classes in the manifest's order."""
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        _note_damage(part, notes)
        for name, total in part.totals.items():
            array = part.together.arrays[name]
            _note_values(array, total, notes)
            if name in claims.unclaimed.get(target.group, ()) and total.nonzero_voxels:
                notes.faults.append(
                    f"{array.place}: is listed as unclaimed but has {total.nonzero_voxels:,} nonzero voxels"
                )
            rows[name] = {
                "dtype": array.dtype.str,
                "nonzero_voxels": total.nonzero_voxels,
                "highest_id": total.highest_id,
            }
            if taxonomy.is_instance(name):
                rows[name] |= _objects(array, total, notes)
    return {name: rows[name] for name in target.classes if name in rows}


def _note_damage(part: _Part, notes: FaultNotes) -> None:
    for name, total in part.totals.items():
        lines = [message.removeprefix(f"{notes.path}: ") for message in total.damaged]
        notes.faults += lines[:_MAX_LINES_PER_ARRAY]
        if len(lines) > _MAX_LINES_PER_ARRAY:
            place, more = part.together.arrays[name].place, len(lines) - _MAX_LINES_PER_ARRAY
            notes.faults.append(f"{place}: {more:,} more chunks cannot be decoded")


def _note_values(array: StoredArray, total: ArrayTotals, notes: FaultNotes) -> None:
    for position, value in total.odd[:_MAX_LINES_PER_ARRAY]:
        chunk = array.key([i // c for i, c in zip(position, array.chunks, strict=True)])
        notes.faults.append(
            f"{array.place}: chunk {chunk} holds {value} at voxel {position}; a semantic class is 0 or 1, "
            "and the server takes everything above 0 for foreground"
        )
    if len(total.odd) > _MAX_LINES_PER_ARRAY:
        more = len(total.odd) - _MAX_LINES_PER_ARRAY
        notes.faults.append(f"{array.place}: {more:,} more blocks hold values other than 0 and 1")


def _objects(array: StoredArray, total: ArrayTotals, notes: FaultNotes) -> dict[str, Any]:
    """How many objects an instance array has at least, and how many the truth must have for it to count.

    The server splits ids into 26-connected objects; here that is done for masks of 0 and 1 only.
    """
    if total.damaged or len(array.shape) != 3 or array.dtype.kind == "f":
        return {"objects": None, "truth_objects_needed": None}
    sizes, at_border = objects_of(array) if total.highest_id == 1 else (total.sizes_voxels, total.at_border)
    objects = len(sizes)
    needed = truth_objects_needed(objects)
    if needed > GENEROUS_TRUTH_OBJECTS:
        notes.warnings.append(
            f"{array.place}: {objects:,} objects are so many that the server leaves the crop out of the "
            f"class unless the truth has {needed:,} or more; drop small objects"
        )
    said = {"objects": objects, "truth_objects_needed": needed, "at_border": at_border}
    return {**said, "sizes_log2_voxels": size_histogram(sizes)}


def truth_objects_needed(objects: int) -> int:
    """The smallest number n of truth objects with which the server still scores that many predicted ones.

    It leaves out a crop with more than 10 + 50 exp(-n / 5) predicted objects per truth object.
    """

    def allowed(n: int) -> float:
        return n * (10 + 50 * math.exp(-n / 5))

    return bisect_left(range(objects + 1), objects, key=allowed)


def _note_contradictions(target: Target, parts: Sequence[_Part], claims: Claims, notes: FaultNotes) -> Violations:
    """The voxels whose claimed classes contradict each other."""
    found = [part.contradictions for part in parts if part.contradictions.broken.voxels]
    if not found:
        return Violations()
    examples = sorted(found[0].examples.items(), key=lambda example: example[1])[:_MAX_EXAMPLES]
    told = "; ".join(
        f"voxel {position} has {', '.join(name for name in target.classes if name in held)}"
        for held, position in examples
    )
    lines = notes.faults if claims.consistency == "joint" else notes.warnings
    broken = found[0].broken
    lines.append(f"{target.group}: {broken.voxels:,} voxels have classes that contradict each other: {told}")
    return broken


def _relations(before: Iterable[Violations], written: Iterable[Violations]) -> dict[str, BrokenRelation]:
    """By what is broken the voxels; the most first."""
    rows: dict[str, BrokenRelation] = {}
    for broken in before:
        for words, voxels in broken.relations.items():
            rows.setdefault(words, BrokenRelation()).before += voxels
    for broken in written:
        for words, voxels in broken.relations.items():
            rows.setdefault(words, BrokenRelation()).written += voxels
    return dict(sorted(rows.items(), key=lambda row: (-row[1].before - row[1].written, row[0])))


def _note_decoding(by_crop: Mapping[str, Mapping[str, ClassChange]], notes: FaultNotes) -> dict[str, DecodedClass]:
    """What joint decoding did to each class, over all crops."""
    rows: dict[str, DecodedClass] = {}
    for crop, classes in by_crop.items():
        for name, changed in classes.items():
            row = rows.setdefault(name, DecodedClass())
            row.alone += changed.alone
            row.removed += changed.removed
            row.added += changed.added
            if changed.most_voxels > (row.most_changed.voxels if row.most_changed else 0):
                row.most_changed = ArrayPlace(crop, changed.most_voxels, changed.most_at_voxels)
    for name, row in rows.items():
        for what, voxels in (("removed", row.removed), ("added", row.added)):
            if voxels > NOTABLE_CHANGE * row.alone:
                share = f" ({voxels / row.alone:.1%})" if row.alone else ""
                notes.warnings.append(
                    f"{name}: joint decoding {what} {voxels:,} voxels, where the class alone has {row.alone:,}{share}"
                )
    return rows
