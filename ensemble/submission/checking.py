"""Whether a submission is one the challenge can score: format, completeness, values, consistency.

Everything is read from the zip alone. The check goes on after every fault, so that one run names them all.
"""

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ensemble.core import ClassChange, Target, Violations, VoxelsZYX, is_instance
from ensemble.methods import size_histogram
from ensemble.submission.archive import open_archive
from ensemble.submission.check_report import (
    GENEROUS_TRUTH_OBJECTS,
    NOTABLE_CHANGE,
    ArrayContents,
    ArrayPlace,
    BrokenRelation,
    CheckReport,
    DecodedClass,
)
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
from ensemble.submission.layout import FaultNotes, find_store, note_extras, open_target
from ensemble.submission.made_for import made_for
from ensemble.submission.stored_array import StoredArray
from ensemble.submission.writer import OnProgress
from ensemble.support import in_threads

_MAX_LINES_PER_ARRAY = 20
_MAX_EXAMPLES = 3
_MAX_THREADS = 8
_MEMORY_BYTES = 2**31


@dataclass
class _Count:
    """Arrays that are counted together, and what was counted of them so far."""

    group: CountedArrays
    totals: dict[str, ArrayTotals] = field(init=False)
    contradictions: ContradictionCount = field(default_factory=ContradictionCount)

    def __post_init__(self) -> None:
        self.totals = {name: ArrayTotals() for name in self.group.arrays}

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
        crops = {t: _counts_of(t, open_target(submission, t, notes), claims) for t in targets}
        note_extras(submission, targets, notes)
        _count([count for counts in crops.values() for count in counts], progress)
        arrays = {t.group: _note_arrays(t, counts, claims, notes) for t, counts in crops.items()}
        written = {t.group: _note_contradictions(t, counts, claims, notes) for t, counts in crops.items()}
        decoding = _note_decoding({t.group: claims.decoding.get(t.group, {}) for t in targets}, notes)
    finally:
        members.close()
    rows = ((f"{crop}/{name}", row) for crop, table in arrays.items() for name, row in table.items())
    before = {crop: violations for crop, violations in claims.before.items() if crop in written}
    faults, warnings = notes.folded()
    return CheckReport(
        faults=faults,
        warnings=warnings,
        made_for=made_for(submission, targets),
        empty=tuple(place for place, row in rows if not row.nonzero_voxels),
        arrays=arrays,
        violations={crop: violations.voxels for crop, violations in written.items()},
        violations_before={crop: violations.voxels for crop, violations in before.items()},
        relations=_relations(before.values(), written.values()),
        decoding=decoding,
    )


def _counts_of(target: Target, arrays: Mapping[str, StoredArray], claims: Claims) -> list[_Count]:
    """A crop's arrays of its shape together, each of the others alone."""
    unclaimed = claims.unclaimed.get(target.group, frozenset())
    binary = frozenset(name for name in arrays if not is_instance(name))
    fitting = {name: array for name, array in arrays.items() if array.shape == target.grid.shape}
    alone = [_Count(LoneArray(name, arrays[name], name in binary)) for name in arrays if name not in fitting]
    if not fitting:
        return alone
    claimed = tuple(name for name in fitting if name not in unclaimed)
    return [_Count(ArrayGroup(fitting, binary, claimed)), *alone]


def _count(counts: Sequence[_Count], progress: OnProgress) -> None:
    """Fill in the totals, in an order that does not depend on threads."""
    blocks = [(count, index) for count in counts for index in count.group.blocks]
    largest = max((count.group.bytes_per_block for count in counts), default=1)
    threads = max(1, min(os.cpu_count() or 1, _MAX_THREADS, _MEMORY_BYTES // largest))
    progress(0, len(blocks))
    counted = in_threads(threads, _counted, blocks)
    for done, ((count, _), totals) in enumerate(zip(blocks, counted, strict=True), start=1):
        count.add(totals)
        progress(done, len(blocks))


def _counted(block: tuple[_Count, Index]) -> tuple[dict[str, ArrayTotals], ContradictionCount]:
    count, index = block
    return count.group.count(index)


def _note_arrays(
    target: Target, counts: Sequence[_Count], claims: Claims, notes: FaultNotes
) -> dict[str, ArrayContents]:
    """Rows of the report, classes in the manifest's order."""
    rows: dict[str, ArrayContents] = {}
    for count in counts:
        _note_damage(count, notes)
        for name, total in count.totals.items():
            array = count.group.arrays[name]
            _note_values(array, total, notes)
            if name in claims.unclaimed.get(target.group, ()) and total.nonzero_voxels:
                notes.faults.append(
                    f"{array.place}: is listed as unclaimed but has {total.nonzero_voxels:,} nonzero voxels"
                )
            rows[name] = _contents(name, array, total, target.grid.shape, notes)
    return {name: rows[name] for name in target.classes if name in rows}


def _note_damage(count: _Count, notes: FaultNotes) -> None:
    for name, total in count.totals.items():
        lines = [message.removeprefix(f"{notes.path}: ") for message in total.damaged]
        notes.faults += lines[:_MAX_LINES_PER_ARRAY]
        if len(lines) > _MAX_LINES_PER_ARRAY:
            place, more = count.group.arrays[name].place, len(lines) - _MAX_LINES_PER_ARRAY
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


def _contents(name: str, array: StoredArray, total: ArrayTotals, shape: VoxelsZYX, notes: FaultNotes) -> ArrayContents:
    """What an array holds: of an instance class also its objects, at least, where they can be counted.

    An array of another shape than its crop's may be of any size, and is not looked through. The server splits ids
    into 26-connected objects; here that is done for masks of 0 and 1 only.
    """
    contents = ArrayContents(array.dtype.str, total.nonzero_voxels, total.highest_id)
    if not is_instance(name) or total.damaged or array.shape != shape or array.dtype.kind == "f":
        return contents
    sizes, at_border = objects_of(array) if total.highest_id == 1 else (total.sizes_voxels, total.at_border)
    objects = len(sizes)
    needed = truth_objects_needed(objects)
    if needed > GENEROUS_TRUTH_OBJECTS:
        notes.warnings.append(
            f"{array.place}: {objects:,} objects are so many that the server leaves the crop out of the "
            f"class unless the truth has {needed:,} or more; drop small objects"
        )
    return replace(
        contents,
        objects=objects,
        truth_objects_needed=needed,
        at_border=at_border,
        sizes_log2_voxels=size_histogram(sizes),
    )


def truth_objects_needed(objects: int) -> int:
    """The smallest number n of truth objects with which the server still scores that many predicted ones.

    It leaves out a crop with more than 10 + 50 exp(-n / 5) predicted objects per truth object.
    """

    def allowed(n: int) -> float:
        return n * (10 + 50 * math.exp(-n / 5))

    return bisect_left(range(objects + 1), float(objects), key=allowed)


def _note_contradictions(target: Target, counts: Sequence[_Count], claims: Claims, notes: FaultNotes) -> Violations:
    """The voxels whose claimed classes contradict each other."""
    contradicting = [count.contradictions for count in counts if count.contradictions.violations.voxels]
    if not contradicting:
        return Violations()
    violations = contradicting[0].violations  # only arrays of the crop's shape are held against each other
    examples = sorted(contradicting[0].examples.items(), key=lambda example: example[1])[:_MAX_EXAMPLES]
    in_words = "; ".join(
        f"voxel {position} has {', '.join(name for name in target.classes if name in classes)}"
        for classes, position in examples
    )
    lines = notes.faults if claims.consistency == "joint" else notes.warnings
    lines.append(f"{target.group}: {violations.voxels:,} voxels have classes that contradict each other: {in_words}")
    return violations


def _relations(before: Iterable[Violations], written: Iterable[Violations]) -> dict[str, BrokenRelation]:
    """By what is broken the voxels; the most first."""
    rows: dict[str, BrokenRelation] = {}
    for violations in before:
        for words, voxels in violations.relations.items():
            rows.setdefault(words, BrokenRelation()).before += voxels
    for violations in written:
        for words, voxels in violations.relations.items():
            rows.setdefault(words, BrokenRelation()).written += voxels
    return dict(sorted(rows.items(), key=lambda row: (-row[1].before - row[1].written, row[0])))


def _note_decoding(by_crop: Mapping[str, Mapping[str, ClassChange]], notes: FaultNotes) -> dict[str, DecodedClass]:
    """What joint decoding did to each class, over all crops."""
    rows: dict[str, DecodedClass] = {}
    for crop, classes in by_crop.items():
        for name, change in classes.items():
            row = rows.setdefault(name, DecodedClass())
            row.alone += change.alone
            row.removed += change.removed
            row.added += change.added
            if change.most_voxels > (row.most_changed.voxels if row.most_changed else 0):
                row.most_changed = ArrayPlace(crop, change.most_voxels, change.most_at_voxels)
    for name, row in rows.items():
        for what, voxels in (("removed", row.removed), ("added", row.added)):
            if voxels > NOTABLE_CHANGE * row.alone:
                share = f" ({voxels / row.alone:.1%})" if row.alone else ""
                notes.warnings.append(
                    f"{name}: joint decoding {what} {voxels:,} voxels, where the class alone has {row.alone:,}{share}"
                )
    return rows
