"""What changed between two submissions: voxels and objects by class, scores, pictures of the largest differences."""

import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core import Box, all_classes, is_instance
from ensemble.methods import Overlaps
from ensemble.report.array_changes import ArrayChange, Difference
from ensemble.report.difference_page import write_difference
from ensemble.report.finished_build import FinishedBuild
from ensemble.submission import ArrayContents, CheckReport, ChunkIndex, StoredArray, Submission, submission_at
from ensemble.support import EnsembleError, Progress, QuietProgress, SubmissionError, cores, in_threads


def diff(a: Path, b: Path, *, page: Path | None = None, progress: Progress | None = None) -> Difference:
    """The difference of two submissions, each a build's folder or a zip; with ``page`` also written as HTML.

    Chunks that are equal byte for byte are decoded once. Raises SubmissionError for what is no submission.
    """
    progress = progress or QuietProgress()
    if page is not None and page.is_dir():
        raise EnsembleError(f"--page {page}: is a folder; name a file")
    with ExitStack() as opened:
        first, second = (opened.enter_context(Submission.open(submission_at(path))) for path in (a, b))
        in_a, in_b = _places(first), _places(second)
        common = sorted(in_a & in_b)
        progress.stage("compare", max(len(common), 1))
        counted = [_counted(path) for path in (a, b)]
        changes = []
        for change in in_threads(cores(), lambda place: _compare(first, second, place, counted), common):
            changes.append(change)
            progress.at(len(changes), change.place)
        scores, routes = _of_builds(a, b)
        difference = Difference(Path(a), Path(b), tuple(changes), tuple(sorted(in_a ^ in_b)), scores, routes)
        if page is not None:
            write_difference(difference, first, second, page)
    return difference


def _places(submission: Submission) -> set[str]:
    return {f"{crop}/{name}" for crop in submission.crops for name in submission.names(crop)}


def _counted(path: Path) -> Mapping[str, Mapping[str, ArrayContents]]:
    """What a build's check counted; nothing for a bare zip."""
    try:
        return CheckReport.from_json((Path(path) / "check.json").read_text(encoding="utf-8")).arrays
    except (OSError, ValueError):
        return {}


def _of_builds(a: Path, b: Path) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[str, str]]]:
    """The scores of both and the routes that differ, where both are builds."""
    try:
        builds = [FinishedBuild.of(path) for path in (a, b)]
    except EnsembleError:
        return {}, {}
    in_a, in_b = (_flat(build.scores) for build in builds)
    routes, others = (_routes(build) for build in builds)
    differing = {name: (words, others[name]) for name, words in routes.items() if others.get(name, words) != words}
    return {key: (in_a[key], in_b[key]) for key in in_a if key in in_b}, differing


def _routes(build: FinishedBuild) -> dict[str, str]:
    """By class how it is made in words; crops that differ one after the other."""
    routes: dict[str, dict[str, None]] = {}
    for crop in build.plan.crops.values():
        for name, made in crop.classes.items():
            models = ", ".join(sorted(model.model.removeprefix("models:/") for model in made.models.values()))
            routes.setdefault(name, {})[made.words + (f" ({models})" if models else "")] = None
    return {name: "; ".join(words) for name, words in routes.items()}


def _flat(scores: Mapping[str, Any] | None) -> dict[str, float]:
    if scores is None:
        return {}
    overall = {key: scores[key] for key in ("overall_score", "overall_instance_score", "overall_semantic_score")}
    classes = scores["label_scores"].items()
    return overall | {name: values.get("combined_score", values.get("iou")) for name, values in classes}


def _compare(
    a: Submission, b: Submission, place: str, counted: Sequence[Mapping[str, Mapping[str, ArrayContents]]]
) -> ArrayChange:
    crop, name = place.split("/")
    left, right = a.array(crop, name), b.array(crop, name)
    if left.shape != right.shape:
        shapes = f"{list(left.shape)} in {a.members.place}, {list(right.shape)} in {b.members.place}"
        raise SubmissionError(f"{place}: has the shape {shapes}; compare submissions of one manifest")
    has_ids = name in all_classes() and is_instance(name) and _are_ids(left, right)
    voxels, overlaps = _count(left, right, count_ids=has_ids)
    change = ArrayChange(place, voxels.both, voxels.only_a, voxels.only_b, busiest=voxels.busiest)
    if not has_ids or max(overlaps.objects) <= 1:  # a mask, whose components nobody counts here
        rows = [side.get(crop, {}).get(name) for side in counted]
        objects_a, objects_b = (None if row is None else row.objects for row in rows)
        return replace(change, objects_a=objects_a, objects_b=objects_b, kept=None)
    objects_a, objects_b = overlaps.objects
    matches = overlaps.matches
    return replace(
        change,
        moved=overlaps.moved_voxels,
        objects_a=objects_a,
        objects_b=objects_b,
        kept=len(matches),
        matches=matches,
    )


@dataclass
class _Voxels:
    """Foreground voxels of two arrays, and the chunk that differs most."""

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    busiest: Box | None = None


def _count(a: StoredArray, b: StoredArray, *, count_ids: bool) -> tuple[_Voxels, Overlaps]:
    voxels, overlaps, most = _Voxels(), Overlaps(), (0, 0)
    for chunk in _chunks(a, b):
        box = a.chunk_box(chunk)
        left = a.read(box)
        right = left if _same_bytes(a, b, chunk) else b.read(box)
        if count_ids:
            overlaps.add(left, right)
        if right is left:
            voxels.both += int(np.count_nonzero(left))
            continue
        in_a, in_b = left > 0, right > 0
        only_a, only_b = int(np.count_nonzero(in_a & ~in_b)), int(np.count_nonzero(in_b & ~in_a))
        voxels.both += int(np.count_nonzero(in_a & in_b))
        voxels.only_a += only_a
        voxels.only_b += only_b
        weight = only_a + only_b, int(np.count_nonzero(left != right))
        if weight > most:
            most, voxels.busiest = weight, box
    return voxels, overlaps


def _are_ids(*arrays: StoredArray) -> bool:
    return all(array.dtype.kind == "u" for array in arrays)


def _chunks(a: StoredArray, b: StoredArray) -> list[ChunkIndex]:
    """Indices, in chunks of the first, of all blocks where either may hold anything."""
    if a.chunks == b.chunks:
        return sorted({*a.present, *b.present})
    return list(Box.of_shape(a.shape_zyx).to_chunks(a.chunks_zyx).indices())


def _same_bytes(a: StoredArray, b: StoredArray, chunk: ChunkIndex) -> bool:
    if a.chunks != b.chunks or a.dtype != b.dtype or chunk not in a.present or chunk not in b.present:
        return False
    names = a.present[chunk], b.present[chunk]
    sizes = a.members.sizes[names[0]], b.members.sizes[names[1]]
    if sizes[0] != sizes[1] or a.encoding != b.encoding:
        return False
    try:
        return a.members.read(names[0], sizes[0]) == b.members.read(names[1], sizes[1])
    except (OSError, ValueError, zipfile.BadZipFile):
        return False  # decoding it tells what is wrong, by name
