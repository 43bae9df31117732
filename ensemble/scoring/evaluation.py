"""The challenge's own numbers: of a submission, or of any two volumes of labels.

For arrays, ``instance_scores`` and ``semantic_scores`` need neither zarr nor torch.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import NmZYX, Target, is_instance
from ensemble.scoring.instances import compare
from ensemble.scoring.metrics import Partition, instance_metrics, partition_of, semantic_metrics
from ensemble.scoring.objects import overlap_table, split_objects, truth_ids
from ensemble.scoring.pooling import Tally, instance_class_scores, semantic_class_scores
from ensemble.scoring.rules import LATEST_RULES, Rules, rules_named
from ensemble.scoring.scores import ArrayScore, ArrayStatus, Scores
from ensemble.scoring.semantic import VoxelCounts, count_voxels
from ensemble.support import Progress, QuietProgress, SubmissionError, VolumeError, cores, default_memory_bytes

if TYPE_CHECKING:
    from ensemble.scoring.pairs import Pair
    from ensemble.submission import StoredArray, Submission

_WORKING_BYTES_PER_VOXEL = 12
"""Of an instance array, beyond truth and prediction: its objects, and distances in the largest box."""


def instance_scores(
    truth: NDArray[Any],
    prediction: NDArray[Any],
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
    status, tally, why = _instances(truth_ids(truth), objects, voxel_size_nm, rules_named(rules_name), threads)
    scores: dict[str, Any] = dict(instance_class_scores(tally))
    if status == ArrayStatus.TOO_MANY:
        scores = dict.fromkeys(scores)
    counts = {"tp": tally.tp, "fp": tally.fp, "fn": tally.fn, "status": status.value, "why": why}
    return {**scores, **counts, **instance_metrics(tally.partition or Partition())}


def semantic_scores(truth: NDArray[Any], prediction: NDArray[Any]) -> dict[str, float | int | str | None]:
    """A semantic class of one crop: official score, counts, status, and the field's metrics by name.

    Foreground is everything above 0. Raises ValueError for volumes that differ in shape.
    """
    voxels = count_voxels(truth, prediction)
    status, tally = _voxels(voxels)
    counts = {"tp": tally.tp, "fp": tally.fp, "fn": tally.fn, "status": status.value}
    return {**semantic_metrics(voxels), **semantic_class_scores(tally), **counts}


def tally_array(
    name: str, truth: NDArray[Any], prediction: NDArray[Any], voxel_size_nm: NmZYX, *, threads: int = 1
) -> Tally:
    """What a class's array in one crop, or a block of it, counts under the newest rules; blocks add up.

    Too many objects to be matched count as none found: officially the crop is left out, which nobody should aim at.
    """
    if not is_instance(name):
        return _voxels(count_voxels(truth, prediction))[1]
    objects, _ = split_objects(prediction)
    wanted = truth_ids(truth)
    status, tally, _ = _instances(wanted, objects, voxel_size_nm, rules_named(LATEST_RULES), threads)
    return _missing_objects(wanted)[1] if status == ArrayStatus.TOO_MANY else tally


@dataclass(frozen=True)
class ScoringLimits:
    """Threads to use, and memory to stay within; an array that needs more than all of it is scored alone."""

    workers: int = field(default_factory=cores)
    memory_bytes: int = field(default_factory=default_memory_bytes)


def score(
    submission: Path,
    truth: Path | str,
    targets: Sequence[Target],
    *,
    rules_name: str = LATEST_RULES,
    limits: ScoringLimits | None = None,
    progress: Progress | None = None,
) -> Scores:
    """What a submission (a zip or an unzipped folder) is worth for ``targets``.

    ``truth`` holds {crop}/{class} arrays, and perhaps {crop}/{class}_mask: what is 0 there does not count.
    (The official scorer also takes each mask for a missing class, an accident that is not repeated here.)
    What the submission lacks counts against it; what the truth lacks does not count. Raises SubmissionError
    or VolumeError, naming all of them, for arrays that are not on the manifest's grid or cannot be read.
    """
    from ensemble.scoring.pairs import pair_up
    from ensemble.submission import Submission

    rules, limits = rules_named(rules_name), limits or ScoringLimits()
    with Submission.open(submission) as opened:
        paired = pair_up(opened, truth, targets)
        scores = _score_all(paired.pairs, rules, limits, progress or QuietProgress())
        leaks = _leaks(opened, {target.group for target in targets})
    for target, name in paired.without_truth:
        scores[target.group, name] = ArrayScore(
            ArrayStatus.NO_TRUTH, Tally(), target.grid.size, target.grid.voxel_size_nm
        )
    arrays = {t.group: {name: scores[t.group, name] for name in t.classes} for t in targets}
    instances = frozenset(name for t in targets for name in t.classes if is_instance(name))
    return Scores(rules.name, instances, arrays, leaks)


def _leaks(submission: "Submission", groups: set[str]) -> dict[str, tuple[str, ...]]:
    """The crops that sources were trained on, as the builder noted them."""
    sources = submission.attributes.get("trained_on", {})
    if not isinstance(sources, dict):
        return {}
    return {crop: tuple(map(str, sources[crop])) for crop in sorted(groups) if isinstance(sources.get(crop), list)}


def _score_all(
    pairs: "Sequence[Pair]", rules: Rules, limits: ScoringLimits, progress: Progress
) -> dict[tuple[str, str], ArrayScore]:
    """The largest first, so that none is left to the end alone."""
    memory = _SharedMemory(limits.memory_bytes)

    def work(pair: "Pair") -> ArrayScore:
        with memory.holding(_bytes_needed(pair)):
            return _score_pair(pair, rules, limits.workers)

    scores: dict[tuple[str, str], ArrayScore] = {}
    done = 0
    progress.stage("score", sum(pair.target.grid.size for pair in pairs))
    with ThreadPoolExecutor(limits.workers) as pool:
        try:
            futures = {pool.submit(work, pair): pair for pair in sorted(pairs, key=_bytes_needed, reverse=True)}
            for future in as_completed(futures):
                pair = futures[future]
                scores[pair.target.group, pair.name] = future.result()
                done += pair.target.grid.size
                progress.at(done, pair.place)
        finally:
            pool.shutdown(cancel_futures=True)
    return scores


class _SharedMemory:
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


def _score_pair(pair: "Pair", rules: Rules, threads: int) -> ArrayScore:
    grid = pair.target.grid
    why = None
    if not pair.is_instance:
        status, tally = _missing_voxels(grid.size) if pair.prediction is None else _semantic_pair(pair)
    elif pair.prediction is None:
        status, tally = _missing_objects(_truth_of(pair))
    else:
        truth = _truth_of(pair)
        status, tally, why = _instances(truth, _objects_of(pair, pair.prediction), grid.voxel_size_nm, rules, threads)
    return ArrayScore(status, tally, grid.size, grid.voxel_size_nm, why)


def _semantic_pair(pair: "Pair") -> tuple[ArrayStatus, Tally]:
    return _voxels(sum((count_voxels(*slab) for slab in pair.slabs()), VoxelCounts()))


def _truth_of(pair: "Pair") -> NDArray[Any]:
    try:
        return truth_ids(pair.whole_truth())
    except ValueError as error:
        raise VolumeError(f"{pair.truth.place}: {error}") from error


def _objects_of(pair: "Pair", prediction: "StoredArray") -> NDArray[Any]:
    try:
        return split_objects(pair.whole_prediction())[0]
    except ValueError as error:
        raise SubmissionError(f"{prediction.members.place}: {pair.place} {error}") from error


def _voxels(voxels: VoxelCounts) -> tuple[ArrayStatus, Tally]:
    status = ArrayStatus.SCORED if voxels.tp + voxels.fn else ArrayStatus.EMPTY_TRUTH
    return status, Tally(voxels.tp, voxels.fp, voxels.fn)


def _missing_voxels(size: int) -> tuple[ArrayStatus, Tally]:
    """The official scorer holds every voxel of a missing array against it, whatever the truth."""
    return ArrayStatus.MISSING, Tally(fn=size)


def _missing_objects(truth: NDArray[Any]) -> tuple[ArrayStatus, Tally]:
    """Every object is missed, with a distance score of 0."""
    counted = overlap_table(truth, np.zeros(truth.shape, np.uint8))
    missed = len(counted.truth_ids)
    return ArrayStatus.MISSING, Tally(fn=missed, distances=missed, partition=partition_of(counted))


def _instances(
    truth: NDArray[Any], objects: NDArray[Any], voxel_size_nm: NmZYX, rules: Rules, threads: int
) -> tuple[ArrayStatus, Tally, str | None]:
    compared = compare(truth, objects, voxel_size_nm, rules.limits, threads=threads)
    partition = partition_of(compared.overlaps)
    if compared.left_out:
        return ArrayStatus.TOO_MANY, Tally(partition=partition), compared.left_out
    scores = rules.distance_scores(compared)
    status = ArrayStatus.SCORED if partition.objects_truth else ArrayStatus.EMPTY_TRUTH
    tally = Tally(compared.tp, compared.fp, compared.fn, float(scores.sum()), len(scores), partition)
    return status, tally, None
