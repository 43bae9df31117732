"""One crop of an instance class: its objects matched, and how far each is from its match."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ensemble.core import Box, NmZYX
from ensemble.scoring.hausdorff import Body, hausdorff_nm
from ensemble.scoring.matching import MatchingLimits, match
from ensemble.scoring.objects import OverlapTable, box_of, overlap_table


@dataclass(frozen=True)
class Comparison:
    """A predicted crop beside its truth.

    ``distances_nm``: by object of the truth, ascending ids, the Hausdorff distance to its prediction, at most
    ``farthest_nm``, which also stands for no prediction. ``matched``: by object of the truth, whether
    it has a match. ``left_out``: why the crop does not count, if so; nothing is matched or measured then.
    """

    overlaps: OverlapTable
    voxel_size_nm: NmZYX
    farthest_nm: float
    matched: NDArray[np.bool_]
    distances_nm: NDArray[np.float32]
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


def farthest_nm(shape: Sequence[int], voxel_size_nm: NmZYX) -> float:
    """The distance beyond which none is told from another: half of the crop's shortest side."""
    return min(float(v) * n / 2 for v, n in zip(voxel_size_nm, shape, strict=True))


def compare(
    truth: NDArray[Any], predicted: NDArray[Any], voxel_size_nm: NmZYX, limits: MatchingLimits, *, threads: int = 1
) -> Comparison:
    """``predicted`` objects beside the ``truth``: C-contiguous, as ``split_objects`` and ``truth_ids`` return."""
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the prediction {predicted.shape}")
    counted = overlap_table(truth, predicted, threads=threads)
    farthest = farthest_nm(truth.shape, voxel_size_nm)
    why = limits.exceeded(counted)
    if why:
        nothing = np.zeros(0, bool), np.zeros(0, np.float32)
        return Comparison(counted, voxel_size_nm, farthest, *nothing, left_out=why)
    matches = match(counted)
    pairs = _pairs(counted, matches)
    distances = np.full(len(counted.truth_ids), farthest, np.float32)
    measured = [index for index, objects in enumerate(pairs) if objects]
    if measured:
        ruler = _Ruler(truth, predicted, counted, voxel_size_nm)

        def measure(index: int) -> float:
            return ruler.distance_nm(int(counted.truth_ids[index]), pairs[index], farthest, threads)

        # not in_threads: sizes differ by orders of magnitude, and none shall wait for the one before it
        with ThreadPoolExecutor(threads) as pool:
            distances[measured] = list(pool.map(measure, measured))
    return Comparison(counted, voxel_size_nm, farthest, np.isin(counted.truth_ids, matches), distances)


def _pairs(counted: OverlapTable, matches: NDArray[np.int64]) -> list[list[int]]:
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
    """Measures the objects of one truth by those of one prediction."""

    def __init__(
        self, truth: NDArray[Any], predicted: NDArray[Any], counted: OverlapTable, voxel_size_nm: NmZYX
    ) -> None:
        self._truth, self._predicted = truth, predicted
        self._counted, self._voxel_size_nm = counted, voxel_size_nm
        # by id, from 1 on
        self._truth_slices, self._predicted_slices = find_objects(truth), find_objects(predicted)

    def distance_nm(self, id_: int, objects: list[int], limit_nm: float, threads: int) -> float:
        """Of an object of the truth from all the predicted ``objects`` together, at most ``limit_nm``."""
        size = int(self._counted.truth_sizes[id_])
        true = Body(self._truth, id_, self._box(self._truth_slices, id_), size)
        sizes = self._counted.predicted_sizes
        bodies = [Body(self._predicted, n, self._box(self._predicted_slices, n), int(sizes[n])) for n in objects]
        touching = [bool(self._counted.table[id_, n]) for n in objects]
        return hausdorff_nm(true, bodies, touching, self._voxel_size_nm, limit_nm, threads)

    @staticmethod
    def _box(slices: Sequence[tuple[slice, ...] | None], id_: int) -> Box:
        """Of an id that occurs."""
        index = slices[id_ - 1]
        if index is None:
            raise ValueError(f"no voxel has the id {id_}")
        return box_of(index)
