"""The EM of a build's datasets: opened once, asked by the plan for its geometry and by inference for tissue."""

from collections.abc import Sequence
from functools import cached_property

from ensemble.grid import Grid, Slices
from ensemble.plan import Job
from ensemble.volume import Place, Pyramid, Tissue, open_em, tissue


class EM:
    """The pyramids under one data root. ``absent_is_zero``: chunks never written are black, not missing."""

    def __init__(self, root: Place, *, absent_is_zero: bool = False) -> None:
        self._root = root
        self._absent_is_zero = absent_is_zero

    @cached_property
    def _pyramids(self) -> dict[str, Pyramid]:
        return {}

    def pyramid(self, dataset: str) -> Pyramid:
        """Raises VolumeError when the dataset's EM is not under the root."""
        if dataset not in self._pyramids:
            self._pyramids[dataset] = open_em(self._root, dataset)
        return self._pyramids[dataset]

    def levels(self, dataset: str) -> Sequence[Grid]:
        return [level.grid for level in self.pyramid(dataset).levels]

    def tissue_box(self, dataset: str, level: int, core: Slices, wanted: Slices) -> Slices:
        volume = self.pyramid(dataset).levels[level]
        return tissue(volume, core, wanted, absent_is_zero=self._absent_is_zero).box

    def tissue(self, job: Job) -> Tissue:
        """What a job reads."""
        volume = self.pyramid(job.dataset).levels[job.fit.level]
        return Tissue(volume, job.tissue_box, self._absent_is_zero)

    def warnings(self, job: Job, target: Grid) -> list[str]:
        """What a person should know of the EM under a crop, a line each."""
        said = []
        over = job.level_grid.slices_over(target)
        for s, box, letter in zip(over, job.tissue_box, "zyx", strict=True):
            short = max(box.start - s.start, s.stop - box.stop)
            if short > 0:
                said.append(
                    f"crop {job.crop}: the EM that is there ends {short} voxels inside the crop along {letter}; "
                    "it is mirrored there"
                )
        absent = self.tissue(job).absent_chunks()
        if absent:
            said.append(f"crop {job.crop}: {absent} chunks of EM were never written; mirrored from their neighbours")
        return said
