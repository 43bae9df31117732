"""One crop of an instance class: its objects matched, and how far each is from its match."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from scipy.ndimage import find_objects

from ensemble.grid import Triple
from ensemble.scoring import hausdorff
from ensemble.scoring.matching import Limits, match
from ensemble.scoring.objects import Overlaps, overlaps


@dataclass(frozen=True)
class Comparison:
    """A predicted crop beside its truth.

    ``distances_nm``: by object of the truth, ascending ids, the Hausdorff distance to its prediction, at most
    ``farthest_nm``, which also stands for no prediction; float32. ``matched``: by object of the truth, whether
    it has a match. ``left_out``: why the crop does not count, if so; nothing is matched or measured then.
    """

    overlaps: Overlaps
    voxel_size_nm: Triple
    farthest_nm: float
    matched: np.ndarray
    distances_nm: np.ndarray
    left_out: str | None = None

    @cached_property
    def tp(self) -> int:
        return int(self.matched.sum())

    @property
    def fp(self) -> int:
        return 0 if self.left_out else self.overlaps.predicted - self.tp

    @property
    def fn(self) -> int:
        return len(self.matched) - self.tp


def farthest_nm(shape: Sequence[int], voxel_size_nm: Triple) -> float:
    """The distance beyond which none is told from another: half of the crop's shortest side."""
    return min(float(v) * n / 2 for v, n in zip(voxel_size_nm, shape, strict=True))


def compare(
    truth: np.ndarray, predicted: np.ndarray, voxel_size_nm: Triple, limits: Limits, *, threads: int = 1
) -> Comparison:
    """``predicted`` objects beside the ``truth``: C-contiguous, as ``split_objects`` and ``truth_ids`` return."""
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the prediction {predicted.shape}")
    counted = overlaps(truth, predicted, threads=threads)
    farthest = farthest_nm(truth.shape, voxel_size_nm)
    why = limits.exceeded(counted)
    if why:
        nothing = np.zeros(0, bool), np.zeros(0, np.float32)
        return Comparison(counted, voxel_size_nm, farthest, *nothing, left_out=why)
    matches = match(counted)
    pairs = _pairs(counted, matches)
    distances = np.full(len(counted.truth_ids), farthest, np.float32)
    if any(pairs):
        measure = _Ruler(truth, predicted, voxel_size_nm, farthest)
        measure.fill(distances, counted.truth_ids, pairs, threads)
    return Comparison(counted, voxel_size_nm, farthest, np.isin(counted.truth_ids, matches), distances)


def _pairs(counted: Overlaps, matches: np.ndarray) -> list[list[int]]:
    """By object of the truth the predicted objects that are taken for it.

    An unmatched predicted object keeps its number, and so falls in with the prediction of the truth's object
    of that number: an accident of the official scorer that its distances depend on.
    """
    predicted_by_truth = {int(id_): [int(n)] for n, id_ in enumerate(matches) if id_}
    pairs = [predicted_by_truth.get(int(id_), []) for id_ in counted.truth_ids]
    for id_, pair in zip(counted.truth_ids, pairs, strict=True):
        if id_ < len(matches) and not matches[id_]:
            pair.append(int(id_))
    return pairs


class _Ruler:
    """Measures objects of one truth and one prediction."""

    def __init__(self, truth: np.ndarray, predicted: np.ndarray, voxel_size_nm: Triple, farthest_nm: float) -> None:
        self._truth, self._predicted = truth, predicted
        self._voxel_size_nm, self._farthest_nm = voxel_size_nm, farthest_nm
        # by id, from 1 on
        self._truth_slices, self._predicted_slices = find_objects(truth), find_objects(predicted)

    def fill(self, distances: np.ndarray, ids: np.ndarray, pairs: list[list[int]], threads: int) -> None:
        """Write the distance of every id that has a prediction."""
        small, large = [], []
        for index, (id_, objects) in enumerate(zip(ids, pairs, strict=True)):
            if objects:
                size = np.prod(np.diff(hausdorff.union(*self._boxes(id_, objects)), axis=0))
                (large if size > hausdorff.LARGE_VOXELS else small).append(index)

        def measure(index: int, threads: int = 1) -> None:
            distances[index] = self._distance_nm(ids[index], pairs[index], threads)

        for index in large:  # one at a time, by all threads, so that few large boxes are held
            measure(index, threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(measure, small))

    def _boxes(self, id_: int, objects: list[int]) -> tuple[hausdorff.Box, hausdorff.Box]:
        boxes = [hausdorff.box(self._predicted_slices[n - 1]) for n in objects]
        return hausdorff.box(self._truth_slices[id_ - 1]), reduce(hausdorff.union, boxes)

    def _distance_nm(self, id_: int, objects: list[int], threads: int) -> float:
        both = self._boxes(id_, objects)
        if hausdorff.least_nm(*both, self._voxel_size_nm) >= self._farthest_nm:
            return self._farthest_nm
        where = hausdorff.slices(hausdorff.union(*both))
        true = self._truth[where] == id_
        predicted = self._predicted[where] == objects[0]
        for other in objects[1:]:
            predicted |= self._predicted[where] == other
        distance = hausdorff.hausdorff_nm(true, predicted, both, self._voxel_size_nm, threads=threads)
        return min(distance, self._farthest_nm)
