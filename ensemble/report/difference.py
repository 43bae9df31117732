"""What changed between two submissions: voxels and objects by class, scores, pictures of the largest differences."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.methods.overlaps import Overlaps
from ensemble.report import facts, pictures
from ensemble.submission.reader import Submission
from ensemble.submission.stored_array import StoredArray
from ensemble.support import machine as resources
from ensemble.support.errors import EnsembleError, SubmissionError
from ensemble.support.files import write_text
from ensemble.support.progress import Progress, QuietProgress

PICTURED = 12
"""Arrays whose difference is shown: those that changed most."""
_EDGE = 192


@dataclass(frozen=True)
class Change:
    """One array, or a class, in both submissions: foreground voxels by where they are, and objects.

    ``moved`` voxels are foreground in both, in objects that are not the same (IoU at most one half); ``kept`` objects
    are the same in both. Objects are None where nobody counted, ``kept`` where there are no ids. ``matches``: id in B
    -> id in A.
    """

    place: str
    both: int = 0
    only_a: int = 0
    only_b: int = 0
    moved: int = 0
    objects_a: int | None = 0
    objects_b: int | None = 0
    kept: int | None = 0
    busiest: tuple[int, int, int] | None = None
    matches: Mapping[int, int] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return self.only_a + self.only_b

    @property
    def any(self) -> bool:
        return bool(self.changed or self.moved)

    def plus(self, other: "Change") -> "Change":
        """Both together, under this one's name."""
        counts = (getattr(self, key) + getattr(other, key) for key in ("both", "only_a", "only_b", "moved"))
        pairs = ((getattr(self, key), getattr(other, key)) for key in ("objects_a", "objects_b", "kept"))
        return Change(self.place, *counts, *(None if None in pair else sum(pair) for pair in pairs))


@dataclass(frozen=True)
class Difference:
    """``missing`` are arrays that only one has; ``scores``: key -> score in A and B, where both were scored.

    ``routes``: class -> how A and B make it, in words, where both are builds and it differs.
    """

    a: Path
    b: Path
    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    scores: Mapping[str, tuple[float, float]]
    routes: Mapping[str, tuple[str, str]]

    def by_class(self) -> dict[str, Change]:
        """The changes of each class over its crops, the largest first."""
        total: dict[str, Change] = {}
        for one in self.changes:
            name = one.place.split("/")[1]
            total[name] = total.get(name, Change(name)).plus(one)
        return dict(sorted(total.items(), key=lambda item: (-item[1].changed, -item[1].moved)))


def _zip_of(path: Path) -> Path:
    """The submission that a build's folder, or a zip, is."""
    inside = Path(path) / "submission.zip"
    if not inside.is_file() and (Path(path) / "plan.json").exists():
        raise EnsembleError(f"{path}: its submission.zip is not there any more; build it again")
    return inside if inside.is_file() else Path(path)


def diff(a: Path, b: Path, *, page: Path | None = None, progress: Progress | None = None) -> Difference:
    """The difference of two submissions, each a build's folder or a zip; with ``page`` also written as HTML.

    Chunks that are equal byte for byte are decoded once. Raises SubmissionError for what is no submission.
    """
    progress = progress or QuietProgress()
    if page is not None and page.is_dir():
        raise EnsembleError(f"--page {page}: is a folder; name a file")
    with ExitStack() as opened:
        first, second = (opened.enter_context(Submission.open(_zip_of(path))) for path in (a, b))
        places = [_places(one) for one in (first, second)]
        common = sorted(places[0] & places[1])
        progress.stage("compare", max(len(common), 1))
        objects = [_objects(path) for path in (a, b)]
        changes = []
        with ThreadPoolExecutor(resources.cores()) as pool:
            compared = pool.map(lambda place: _compare(first, second, place, objects), common)
            for done, one in enumerate(compared, start=1):
                changes.append(one)
                progress.at(done, one.place)
        found = Difference(Path(a), Path(b), tuple(changes), tuple(sorted(places[0] ^ places[1])), *_of_builds(a, b))
        if page is not None:
            _write(found, first, second, page)
    return found


def _places(submission: Submission) -> set[str]:
    return {f"{crop}/{name}" for crop in submission.crops for name in submission.names(crop)}


def _objects(path: Path) -> Mapping[str, Any]:
    """What a build's check counted; nothing for a bare zip."""
    try:
        return json.loads((Path(path) / "check.json").read_text())["arrays"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _of_builds(a: Path, b: Path) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[str, str]]]:
    """The scores of both and the routes that differ, where both are builds."""
    try:
        builds = [facts.FinishedBuild.of(path) for path in (a, b)]
    except EnsembleError:
        return {}, {}
    one, other = (_flat(build.scores) for build in builds)
    routes, others = (_routes(build) for build in builds)
    differing = {name: (words, others[name]) for name, words in routes.items() if others.get(name, words) != words}
    return {key: (one[key], other[key]) for key in one if key in other}, differing


def _routes(build: facts.FinishedBuild) -> dict[str, str]:
    """By class how it is made in words; crops that differ one after the other."""
    found: dict[str, dict[str, None]] = {}
    for crop in build.plan["crops"].values():
        for name, said in crop["classes"].items():
            models = ", ".join(sorted(model["model"].removeprefix("models:/") for model in said["models"].values()))
            found.setdefault(name, {})[said["words"] + (f" ({models})" if models else "")] = None
    return {name: "; ".join(words) for name, words in found.items()}


def _flat(scores: Mapping[str, Any] | None) -> dict[str, float]:
    if scores is None:
        return {}
    overall = {key: scores[key] for key in ("overall_score", "overall_instance_score", "overall_semantic_score")}
    classes = scores["label_scores"].items()
    return overall | {name: said.get("combined_score", said.get("iou")) for name, said in classes}


def _compare(a: Submission, b: Submission, place: str, objects: Sequence[Mapping[str, Any]]) -> Change:
    crop, name = place.split("/")
    one, other = a.array(crop, name), b.array(crop, name)
    if one.shape != other.shape:
        shapes = f"{list(one.shape)} in {a.members.place}, {list(other.shape)} in {b.members.place}"
        raise SubmissionError(f"{place}: has the shape {shapes}; compare submissions of one manifest")
    both = only_a = only_b = 0
    most, busiest, overlaps = (0, 0), None, Overlaps()
    instances = name in taxonomy.all_classes() and taxonomy.is_instance(name) and _are_ids(one, other)
    for chunk in _chunks(one, other):
        block = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(chunk, one.chunks, one.shape, strict=True))
        left = one.read(block)
        right = left if _same_bytes(one, other, chunk) else other.read(block)
        if instances:
            overlaps.add(left, right)
        if right is left:
            both += int(np.count_nonzero(left))
            continue
        in_a, in_b = left > 0, right > 0
        just_a, just_b = int(np.count_nonzero(in_a & ~in_b)), int(np.count_nonzero(in_b & ~in_a))
        only_a, only_b, both = only_a + just_a, only_b + just_b, both + int(np.count_nonzero(in_a & in_b))
        weight = just_a + just_b, int(np.count_nonzero(left != right))
        if weight > most:
            most, busiest = weight, chunk
    counts = [side.get(crop, {}).get(name, {}).get("objects") for side in objects]
    if not instances or max(overlaps.objects) <= 1:  # a mask, whose components nobody counts here
        return Change(place, both, only_a, only_b, 0, *counts, None, busiest)
    matches = overlaps.matches
    return Change(place, both, only_a, only_b, overlaps.moved_voxels, *overlaps.objects, len(matches), busiest, matches)


def _are_ids(*arrays: StoredArray) -> bool:
    return all(array.dtype.kind == "u" for array in arrays)


def _chunks(a: StoredArray, b: StoredArray) -> list[tuple[int, ...]]:
    """Indices, in chunks of the first, of all blocks where either may hold anything."""
    if a.chunks == b.chunks:
        return sorted({*a.present, *b.present})
    return list(np.ndindex(*(-(-n // c) for n, c in zip(a.shape, a.chunks, strict=True))))


def _same_bytes(a: StoredArray, b: StoredArray, chunk: tuple[int, ...]) -> bool:
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


def _write(found: Difference, a: Submission, b: Submission, page: Path) -> None:
    from jinja2 import Environment, StrictUndefined

    shown = []
    for one in sorted(found.changes, key=lambda change: (-change.changed, -change.moved))[:PICTURED]:
        if one.busiest is not None and one.any:
            shown.append({"change": one, "views": _views(found, a, b, one)})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("ensemble.report").joinpath("templates/diff.html.j2").read_text(encoding="utf-8")
    write_text(page, environment.from_string(template).render(found=found, shown=shown))


def _views(found: Difference, a: Submission, b: Submission, one: Change) -> list[Mapping[str, str]]:
    """EM, A, B and what is in one only, in the plane along z that changed most."""
    crop, name = one.place.split("/")
    arrays = a.array(crop, name), b.array(crop, name)
    box = pictures.around(arrays[0], one.busiest, _EDGE)
    left, right = (array.read(box) for array in arrays)
    ids, where = np.unique(right, return_inverse=True)
    as_in_a = np.array([one.matches.get(n, n) for n in ids.tolist()])[where].reshape(right.shape)
    differs = ((left > 0) != (right > 0)) if one.changed else left != as_in_a
    at = int(differs.sum(axis=(1, 2)).argmax())
    layers = {"a": pictures.outlines(left[at]), "b": pictures.outlines(as_in_a[at])}
    layers["changed"] = pictures.changes((left[at] > 0) & ~(right[at] > 0), (right[at] > 0) & ~(left[at] > 0))
    layers["position"] = str(box[0].start + at)
    em = _em(found, crop, arrays[0], (slice(box[0].start + at, box[0].start + at + 1), *box[1:]))
    return [layers if em is None else {**layers, "em": em}]


def _em(found: Difference, crop: str, array: StoredArray, box: Any) -> str | None:
    for path in (found.a, found.b):
        try:
            build = facts.FinishedBuild.of(path)
            dataset = build.plan["crops"][crop.removeprefix("crop")]["dataset"]
            levels = build.em(dataset)
        except (EnsembleError, KeyError):
            continue
        if levels is not None:
            grey = pictures.em_window(levels, array.grid, box)
            if grey is not None:
                return pictures.grey(grey[0])
    return None
