"""Whether a submission is one the challenge can score: format, completeness, values, consistency.

Everything is read from the zip alone. The check goes on after every fault, so that one run names them all.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ensemble.core import ClassChange, Target, Violations
from ensemble.engine import Engine, Here
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
from ensemble.submission.contents import ArrayTotals
from ensemble.submission.counting import Count, Objects, count_all, counts_of, forget_opened
from ensemble.submission.layout import FaultNotes, find_store, note_extras, open_target
from ensemble.submission.made_for import made_for
from ensemble.submission.stored_array import StoredArray
from ensemble.submission.writer import OnProgress
from ensemble.support import cores

_MAX_LINES_PER_ARRAY = 20
_MAX_EXAMPLES = 3
_MAX_THREADS = 8
_MEMORY_BYTES = 2**31


def check(
    path: Path,
    targets: Sequence[Target],
    progress: OnProgress = lambda done, total: None,
    engine: Engine | None = None,
) -> CheckReport:
    """What is in, and what is wrong with, the submission (a zip or an unzipped folder) for ``targets``.

    ``progress`` counts blocks, which the engine looks through, or threads of this process. Raises SubmissionError only
    when there is nothing to look into: no file, not a zip, a zip cut short.
    """
    members = open_archive(path)
    try:
        notes = FaultNotes(members.place)
        submission = find_store(members, notes)
        claims = read_claims(submission, notes)
        crops = {t: counts_of(t, open_target(submission, t, notes), claims) for t in targets}
        note_extras(submission, targets, notes)
        with ExitStack() as stack:
            stack.callback(forget_opened)
            count_all(members.place, crops, engine or stack.enter_context(Here(_threads(crops))), progress)
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


def _note_arrays(
    target: Target, counts: Sequence[Count], claims: Claims, notes: FaultNotes
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
            counted = count.may_have_objects(target, name)
            objects = (total.sizes_voxels, total.at_border) if counted and total.highest_id != 1 else None
            rows[name] = _contents(array, total, count.objects.get(name, objects), notes)
    return {name: rows[name] for name in target.classes if name in rows}


def _note_damage(count: Count, notes: FaultNotes) -> None:
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


def _threads(crops: Mapping[Target, Sequence[Count]]) -> int:
    largest = max((count.group.bytes_per_block for counts in crops.values() for count in counts), default=1)
    return max(1, min(cores(), _MAX_THREADS, _MEMORY_BYTES // largest))


def _contents(array: StoredArray, total: ArrayTotals, counted: Objects | None, notes: FaultNotes) -> ArrayContents:
    """What an array holds: of an instance class also its objects, at least, where they can be counted.

    An array of another shape than its crop's may be of any size, and is not looked through. The server splits ids
    into 26-connected objects; here that is done for masks of 0 and 1 only.
    """
    contents = ArrayContents(array.dtype.str, total.nonzero_voxels, total.highest_id)
    if counted is None:
        return contents
    sizes, at_border = counted
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


def _note_contradictions(target: Target, counts: Sequence[Count], claims: Claims, notes: FaultNotes) -> Violations:
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
