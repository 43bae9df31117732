"""One pass of one model over one crop, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from ensemble.core import Box, Grid, LevelFit, VoxelsZYX, patch_starts
from ensemble.plan.recipe import (
    TTA,
)
from registry import Card

FORWARD_PASSES = {"none": 1, "mirror": 8, "octahedral": 48}
"""Forward passes per patch of each kind of test-time augmentation."""

STORED_PLANES = 16
"""Depth of a chunk of stored probabilities."""

Precision = Literal["32", "16", "bf16"]
"""Of a network's arithmetic."""

_VOXELS_PER_PASS = {"cpu": 1 << 17, "cuda": 1 << 22, "mps": 1 << 20}


def patches_per_pass(patch: Sequence[int], device_kind: str) -> int:
    """How many patches a network is given at once: fixed, so that results repeat."""
    return max(1, _VOXELS_PER_PASS[device_kind] // math.prod(patch))


class Model(Protocol):
    """A resolved model version.

    ``weights_bytes`` are its parameters', ``patch_bytes`` those of the tensors alive at once while it answers
    one patch in float32.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def card(self) -> Card: ...

    @property
    def weights_bytes(self) -> int: ...

    @property
    def patch_bytes(self) -> int: ...


ROWS_READ = 8
"""Rows of patches whose EM is read at once, so that few chunks of it are decoded more than twice."""


@dataclass(frozen=True)
class Job:
    """One pass of one model over one crop, all needed channels at once.

    ``level_grid`` is the pyramid level it reads, ``tissue_box`` the part of that with EM in it. ``lattice``
    is the network's voxel grid over the region that patches cover: the crop, context around it, and mirrored
    voxels where the EM ends before a patch does. ``needed`` is the part of it that is kept, ``stored`` the
    grid it is kept on: along each axis the coarser of the network's and the target's.
    """

    source: str
    model: Model
    tta: TTA
    crop: str
    dataset: str
    fit: LevelFit
    level_grid: Grid
    tissue_box: Box
    lattice: Grid
    needed: Box
    stored: Grid
    classes: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, str]:
        """Source and crop: no other job of a plan has both."""
        return self.source, self.crop

    @property
    def patch(self) -> VoxelsZYX:
        return self.model.card.patch_voxels

    @property
    def em_in_words(self) -> str:
        """Whether EM is resampled for the network."""
        return "as it is" if self.fit.exact else "EM upsampled" if self.fit.upsampled else "EM downsampled"

    @property
    def starts(self) -> tuple[list[int], list[int], list[int]]:
        """Where patches start along z, y and x."""
        overlap = self.model.card.overlap
        z, y, x = (patch_starts(n, p, overlap) for n, p in zip(self.lattice.shape, self.patch, strict=True))
        return z, y, x

    @property
    def patches(self) -> int:
        return math.prod(len(along) for along in self.starts)

    @property
    def forward_passes(self) -> int:
        return self.patches * FORWARD_PASSES[self.tta]

    @property
    def stored_bytes(self) -> int:
        """Before compression."""
        return len(self.classes) * self.stored.size

    @property
    def ring_planes(self) -> int:
        """Planes of partial sums that are kept: a patch and the largest step between patches."""
        return self.patch[0] + max((b - a for a, b in pairwise(self.starts[0])), default=0)

    @property
    def waiting_planes(self) -> int:
        """Finished planes that may wait for a stored chunk to be complete."""
        ratio = self.stored.voxel_size_nm[0] / self.lattice.voxel_size_nm[0]
        return self.ring_planes + math.ceil(STORED_PLANES * ratio) + 4

    @property
    def sum_bytes(self) -> int:
        """What partial sums and waiting planes take, in memory or on disk."""
        wide = (len(self.classes) * self.ring_planes + self.patch[0]) * math.prod(self.lattice.shape[1:])
        return 4 * (wide + len(self.classes) * self.waiting_planes * math.prod(self.stored.shape[1:]))

    def spilled_bytes(self, workers: int) -> int:
        """What of them is in memory at a time where they lie on disk: a row of patches, or a channel each."""
        row = len(self.classes) * math.prod(self.patch[:2]) * self.lattice.shape[2]
        step = max(self.ring_planes - self.patch[0], STORED_PLANES) * math.prod(self.lattice.shape[1:])
        channel = 3 * step + self.waiting_planes * math.prod(self.stored.shape[1:])
        return 4 * max(row, 2 * step + workers * channel)

    @property
    def read_bytes(self) -> int:
        """The EM of several rows of patches: as it is read, as float32, and the rows before."""
        step = max((b - a for a, b in pairwise(self.starts[1])), default=0)
        height = min(self.lattice.shape[1], (ROWS_READ - 1) * step + self.patch[1])
        return 3 * 4 * self.patch[0] * height * self.lattice.shape[2]
