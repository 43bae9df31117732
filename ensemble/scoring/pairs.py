"""A submission's arrays beside their truth, opened, found to lie on the manifest's grid, and read by slabs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Target, is_instance, slabs
from ensemble.storage import Location, Volume, misplaced, open_truth
from ensemble.submission import StoredArray, Submission
from ensemble.support import SubmissionError, VolumeError, counted

_SLAB_VOXELS = 2**24


@dataclass(frozen=True)
class Pair:
    """One class of one crop. Without ``prediction`` the submission lacks it; ``mask`` limits what counts."""

    target: Target
    name: str
    truth: Volume
    mask: Volume | None
    prediction: StoredArray | None

    @property
    def place(self) -> str:
        return f"{self.target.group}/{self.name}"

    @property
    def is_instance(self) -> bool:
        return is_instance(self.name)

    @property
    def bytes_per_voxel(self) -> int:
        """Of truth and prediction together."""
        return self.truth.dtype.itemsize + (self.prediction.dtype.itemsize if self.prediction else 0)

    @property
    def slab_voxels(self) -> int:
        """Voxels that are read at a time."""
        _, y, x = self.target.grid.shape
        return min(self._thickness * y * x, self.target.grid.size)

    @property
    def _thickness(self) -> int:
        """Whole chunks of the prediction, which are costly to decode twice."""
        _, y, x = self.target.grid.shape
        chunk: int = self.prediction.chunks[0] if self.prediction else self.truth.chunks[0]
        return chunk * max(1, _SLAB_VOXELS // (chunk * y * x))

    def slabs(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Truth and prediction, slab by slab along z. Raises VolumeError and SubmissionError."""
        for box in self._boxes():
            yield self._read_truth(box), self._read_prediction(box)

    def whole_truth(self) -> NDArray[Any]:
        """Where the mask is 0 it is background; a missing prediction is never masked. Raises VolumeError."""
        return self._whole(self._read_truth, self.truth.dtype)

    def whole_prediction(self) -> NDArray[Any]:
        """All background where there is none. Raises SubmissionError."""
        return self._whole(
            self._read_prediction, np.dtype(np.uint8) if self.prediction is None else self.prediction.dtype
        )

    def _whole(self, read: Callable[[Box], NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
        out = np.empty(self.target.grid.shape, dtype)
        for box in self._boxes():
            out[box.slices] = read(box)
        return out

    def _boxes(self) -> list[Box]:
        return slabs(self.target.grid.shape, self._thickness)

    def _read_truth(self, box: Box) -> NDArray[Any]:
        values = self.truth.read(box)
        return values if self.prediction is None else self._masked(values, box)

    def _read_prediction(self, box: Box) -> NDArray[Any]:
        if self.prediction is None:
            return np.zeros(box.shape, np.uint8)
        return self._masked(self.prediction.read(box), box)

    def _masked(self, values: NDArray[Any], box: Box) -> NDArray[Any]:
        if self.mask is None:
            return values
        return np.where(self.mask.read(box) > 0, values, np.zeros((), values.dtype))


@dataclass(frozen=True)
class Paired:
    """``pairs`` can be scored; ``without_truth`` are the crops and classes that nothing is known of."""

    pairs: tuple[Pair, ...]
    without_truth: tuple[tuple[Target, str], ...]


def pair_up(submission: Submission, truth: Location, targets: Sequence[Target]) -> Paired:
    """Every array of the targets beside its truth.

    Raises VolumeError when there is no truth at all, and VolumeError or SubmissionError, naming all of them
    in one line, when arrays do not lie on the manifest's grid or cannot be decoded.
    """
    pairs: list[Pair] = []
    without_truth: list[tuple[Target, str]] = []
    truth_faults, faults = [], []
    for target, name in ((t, n) for t in targets for n in t.classes):
        try:
            volume = open_truth(truth, target, name)
            mask = open_truth(truth, target, f"{name}_mask") if volume else None
        except VolumeError as error:
            truth_faults.append(str(error))
            continue
        if volume is None:
            without_truth.append((target, name))
            continue
        try:
            pairs.append(Pair(target, name, volume, mask, _open_prediction(submission, target, name)))
        except SubmissionError as error:
            faults.append(str(error).removeprefix(f"{submission.members.place}: "))
    if truth_faults:
        raise VolumeError("; ".join(truth_faults))
    if faults:
        raise SubmissionError(f"{submission.members.place}: not scored: {'; '.join(faults)}")
    if not pairs:
        raise VolumeError(
            f"{truth}: there is no truth for any crop of the manifest, such as {targets[0].group}; check the "
            "path, and name the manifest of these crops with --manifest"
        )
    return Paired(tuple(pairs), tuple(without_truth))


def _open_prediction(submission: Submission, target: Target, name: str) -> StoredArray | None:
    """None when it is missing. Raises SubmissionError when it is not what the manifest asks for."""
    if not submission.files(target.group, name):
        return None
    stored = submission.array(target.group, name)
    place = f"{submission.members.place}: {stored.place}"
    if len(stored.shape) != 3:
        raise SubmissionError(
            f"{place} has {counted(len(stored.shape), 'axis', 'axes')} where three are expected: z, y, x"
        )
    what = misplaced(stored.grid, target.grid)
    if what is None and is_instance(name) and stored.dtype.kind not in "bui":
        what = f"has dtype {stored.dtype.str}; ids are whole numbers"
    if what is None and stored.dtype.str.startswith(">"):
        what = f"has dtype {stored.dtype.str}; numbers are little-endian"
    if what:
        raise SubmissionError(f"{place} {what}")
    return stored
