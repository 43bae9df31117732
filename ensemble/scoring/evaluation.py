"""The challenge's own numbers: of a submission, or of any two volumes of labels.

For arrays, ``instance`` and ``semantic`` need neither zarr nor torch.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.grid import NmZYX
from ensemble.core.manifest import Target
from ensemble.scoring import metrics, pooling, rules
from ensemble.scoring.instances import compare
from ensemble.scoring.objects import overlaps, split_objects, truth_ids
from ensemble.scoring.pooling import Tally
from ensemble.scoring.rules import Rules
from ensemble.scoring.scores import ArrayScore, Scores, Status
from ensemble.scoring.semantic import Voxels, count_voxels
from ensemble.support import machine as resources
from ensemble.support.errors import SubmissionError, VolumeError
from ensemble.support.progress import Progress, QuietProgress

if TYPE_CHECKING:
    from ensemble.scoring.pairs import Pair
    from ensemble.submission.reader import Submission

LATEST_RULES = rules.LATEST

_WORKING_BYTES_PER_VOXEL = 12
"""Of an instance array, beyond truth and prediction: its objects, and distances in the largest box."""


def instance(
    truth: np.ndarray,
    prediction: np.ndarray,
    voxel_size_nm: NmZYX,
    *,
    rules_name: str = LATEST_RULES,
    threads: int = 1,
) -> dict[str, float | int | str | None]:
    """An instance class of one crop: official scores, counts, status, and the field's metrics by name.

    Volumes of ids, axes z, y, x, 0 is background. The truth's ids are its objects; of the prediction, each
    26-connected part of each id is one. With too many of them to be matched the crop does not count: its
    scores are None and ``why`` tells the numbers. Raises ValueError for volumes that are none of ids or
    differ in shape, and EnsembleError for unknown rules.
    """
    objects, _ = split_objects(prediction)
    status, tally, why = _instances(truth_ids(truth), objects, voxel_size_nm, rules.named(rules_name), threads)
    said = {"tp": tally.tp, "fp": tally.fp, "fn": tally.fn, "status": status.value, "why": why}
    scores = pooling.instance_class(tally)
    if status == Status.TOO_MANY:
        scores = dict.fromkeys(scores)
    return scores | said | metrics.instances(tally.partition)


def semantic(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float | int | str | None]:
    """A semantic class of one crop: official score, counts, status, and the field's metrics by name.

    Foreground is everything above 0. Raises ValueError for volumes that differ in shape.
    """
    status, tally = _voxels(count_voxels(truth, prediction))
    said = {"tp": tally.tp, "fp": tally.fp, "fn": tally.fn, "status": status.value}
    return metrics.semantic(Voxels(tally.tp, tally.fp, tally.fn)) | pooling.semantic_class(tally) | said


def tally(name: str, truth: np.ndarray, prediction: np.ndarray, voxel_size_nm: NmZYX, *, threads: int = 1) -> Tally:
    """What a class's array in one crop, or a block of it, counts under the newest rules; blocks add up.

    Too many objects to be matched count as none found: officially the crop is left out, which nobody should aim at.
    """
    if not taxonomy.is_instance(name):
        return _voxels(count_voxels(truth, prediction))[1]
    objects, _ = split_objects(prediction)
    wanted = truth_ids(truth)
    status, found, _ = _instances(wanted, objects, voxel_size_nm, rules.named(LATEST_RULES), threads)
    return _missing_objects(wanted)[1] if status == Status.TOO_MANY else found


@dataclass(frozen=True)
class ScoringLimits:
    """Threads to use, and memory to stay within; an array that needs more than all of it is scored alone."""

    workers: int = field(default_factory=resources.cores)
    memory_bytes: int = field(default_factory=resources.default_memory_bytes)


def score(
    submission: Path,
    truth: Path | str,
    targets: Sequence[Target],
    *,
    rules_name: str = LATEST_RULES,
    resources: ScoringLimits | None = None,
    progress: Progress | None = None,
) -> Scores:
    """What a submission (a zip or an unzipped folder) is worth for ``targets``.

    ``truth`` holds {crop}/{class} arrays, and perhaps {crop}/{class}_mask: what is 0 there does not count.
    (The official scorer also takes each mask for a missing class, an accident that is not repeated here.)
    What the submission lacks counts against it; what the truth lacks does not count. Raises SubmissionError
    or VolumeError, naming all of them, for arrays that are not on the manifest's grid or cannot be read.
    """
    from ensemble.scoring.pairs import pair_up
    from ensemble.submission.reader import Submission

    chosen, resources = rules.named(rules_name), resources or ScoringLimits()
    with Submission.open(submission) as opened:
        paired = pair_up(opened, truth, targets)
        found = _score_all(paired.pairs, chosen, resources, progress or QuietProgress())
        leaks = _leaks(opened, {target.group for target in targets})
    for target, name in paired.without_truth:
        found[target.group, name] = ArrayScore(Status.NO_TRUTH, Tally(), target.grid.size, target.grid.voxel_size_nm)
    arrays = {t.group: {name: found[t.group, name] for name in t.classes} for t in targets}
    instances = frozenset(name for t in targets for name in t.classes if taxonomy.is_instance(name))
    return Scores(chosen.name, instances, arrays, leaks)


def _leaks(submission: "Submission", groups: set[str]) -> dict[str, tuple[str, ...]]:
    """The crops that sources were trained on, as the builder noted them."""
    said = submission.attributes.get("trained_on", {})
    if not isinstance(said, dict):
        return {}
    return {
        crop: tuple(map(str, said[crop])) for crop in sorted(said) if crop in groups and isinstance(said[crop], list)
    }


def _score_all(
    pairs: "Sequence[Pair]", chosen: Rules, resources: ScoringLimits, progress: Progress
) -> dict[tuple[str, str], ArrayScore]:
    """The largest first, so that none is left to the end alone."""
    budget = _Budget(resources.memory_bytes)

    def work(pair: "Pair") -> ArrayScore:
        with budget.holding(_bytes_needed(pair)):
            return _score_pair(pair, chosen, resources.workers)

    found, done = {}, 0
    progress.stage("score", sum(pair.target.grid.size for pair in pairs))
    with ThreadPoolExecutor(resources.workers) as pool:
        try:
            futures = {pool.submit(work, pair): pair for pair in sorted(pairs, key=_bytes_needed, reverse=True)}
            for future in as_completed(futures):
                pair = futures[future]
                found[pair.target.group, pair.name] = future.result()
                done += pair.target.grid.size
                progress.at(done, pair.place)
        finally:
            pool.shutdown(cancel_futures=True)
    return found


class _Budget:
    """Memory that is shared by what runs at the same time."""

    def __init__(self, total_bytes: int) -> None:
        self._total, self._used = total_bytes, 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, needed: int) -> Iterator[None]:
        """Waits until so much is free, or nothing else is held."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + needed <= self._total)
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()


def _bytes_needed(pair: "Pair") -> int:
    if not pair.is_instance:
        return 2 * pair.slab_voxels * (pair.bytes_per_voxel + 1)
    return pair.target.grid.size * (pair.bytes_per_voxel + _WORKING_BYTES_PER_VOXEL)


def _score_pair(pair: "Pair", chosen: Rules, threads: int) -> ArrayScore:
    grid = pair.target.grid
    why = None
    if not pair.is_instance:
        status, tally = _missing_voxels(grid.size) if pair.prediction is None else _semantic_pair(pair)
    elif pair.prediction is None:
        status, tally = _missing_objects(_truth_of(pair))
    else:
        truth = _truth_of(pair)
        status, tally, why = _instances(truth, _objects_of(pair), grid.voxel_size_nm, chosen, threads)
    return ArrayScore(status, tally, grid.size, grid.voxel_size_nm, why)


def _semantic_pair(pair: "Pair") -> tuple[Status, Tally]:
    return _voxels(sum((count_voxels(*slab) for slab in pair.slabs()), Voxels()))


def _truth_of(pair: "Pair") -> np.ndarray:
    try:
        return truth_ids(pair.whole_truth())
    except ValueError as error:
        raise VolumeError(f"{pair.truth.place}: {error}") from error


def _objects_of(pair: "Pair") -> np.ndarray:
    try:
        return split_objects(pair.whole_prediction())[0]
    except ValueError as error:
        raise SubmissionError(f"{pair.prediction.members.place}: {pair.place} {error}") from error


def _voxels(voxels: Voxels) -> tuple[Status, Tally]:
    status = Status.SCORED if voxels.tp + voxels.fn else Status.EMPTY_TRUTH
    return status, Tally(voxels.tp, voxels.fp, voxels.fn)


def _missing_voxels(size: int) -> tuple[Status, Tally]:
    """The official scorer holds every voxel of a missing array against it, whatever the truth."""
    return Status.MISSING, Tally(fn=size)


def _missing_objects(truth: np.ndarray) -> tuple[Status, Tally]:
    """Every object is missed, with a distance score of 0."""
    counted = overlaps(truth, np.zeros(truth.shape, np.uint8))
    missed = len(counted.truth_ids)
    return Status.MISSING, Tally(fn=missed, distances=missed, partition=metrics.partition(counted))


def _instances(
    truth: np.ndarray, objects: np.ndarray, voxel_size_nm: NmZYX, chosen: Rules, threads: int
) -> tuple[Status, Tally, str | None]:
    compared = compare(truth, objects, voxel_size_nm, chosen.limits, threads=threads)
    partition = metrics.partition(compared.overlaps)
    if compared.left_out:
        return Status.TOO_MANY, Tally(partition=partition), compared.left_out
    scores = chosen.distance_scores(compared)
    status = Status.SCORED if partition.objects_truth else Status.EMPTY_TRUTH
    tally = Tally(compared.tp, compared.fp, compared.fn, float(scores.sum()), len(scores), partition)
    return status, tally, None
