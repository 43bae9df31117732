"""One pass of one model over one crop, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from ensemble.core import Box, Grid, LevelFit, VoxelsZYX
from ensemble.plan.recipe import (
    TTA,
)
from registry import Card

FORWARD_PASSES = {"none": 1, "mirror": 8, "octahedral": 48}
"""Forward passes per patch of each kind of test-time augmentation."""

CHANNELS_BYTES = 64 << 20
"""About how much of finished planes is carried to the stored grid at once; never less than one channel's."""

STORED_CHUNK = (16, 128, 128)
"""Chunk of stored probabilities: thin enough to be complete soon."""

Precision = Literal["auto", "32", "tf32", "16", "bf16"]
"""Of a network's arithmetic; "auto" is the fastest that changes its answers little enough, as measured."""

_VOXELS_PER_PASS = {"cpu": 1 << 17, "cuda": 1 << 22, "mps": 1 << 20}


def patches_per_pass(patch: Sequence[int], device_kind: str) -> int:
    """How many patches a network is given at once: fixed, so that results repeat."""
    return max(1, _VOXELS_PER_PASS[device_kind] // math.prod(patch))


Starts = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Where patches start along z, y and x."""


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


_INTERPOLATED_VOXELS = (2, 2, 2)
"""Of a level around what is resampled from it, at most."""

ROWS_READ = 8
"""Rows of patches whose EM is read at once, so that few chunks of it are decoded more than twice."""


@dataclass(frozen=True)
class Job:
    """One pass of one model over one crop, all needed channels at once.

    ``level_grid`` is the pyramid level it reads, ``tissue_box`` the part of that with EM in it. ``lattice``
    is the network's voxel grid over the region that patches cover: the crop, context around it, and mirrored
    voxels where the EM ends before a patch does; patches begin at its voxels ``starts``. ``needed`` is the part
    of it that is kept, ``stored`` the grid it is kept on: along each axis the coarser of the network's and the
    target's. Of a whole job's patches ``context_patches`` are there only for what lies around the crop.
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
    starts: Starts
    classes: tuple[str, ...]
    context_patches: int

    @property
    def identity(self) -> tuple[str, str]:
        """Source and crop: no other job of a plan has both."""
        return self.source, self.crop

    @property
    def patch(self) -> VoxelsZYX:
        return self.model.card.patch_voxels

    @property
    def level_box(self) -> Box:
        """The voxels of the level that patches are read, or interpolated, from; some may lie outside the tissue."""
        if not self.fit.exact:
            return self.level_grid.box_over(self.lattice, _INTERPOLATED_VOXELS)
        origin = (round(self.level_grid.position_voxels(a, self.lattice.origin_nm[a])) for a in range(3))
        return Box.at(origin, self.lattice.shape)

    @property
    def em_in_words(self) -> str:
        """Whether EM is resampled for the network."""
        return "as it is" if self.fit.exact else "EM upsampled" if self.fit.upsampled else "EM downsampled"

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
    def chunk_planes(self) -> int:
        """Planes of the lattice that a chunk of stored planes is made of, at most."""
        ratio = max(1.0, self.stored.voxel_size_nm[0] / self.lattice.voxel_size_nm[0])
        return math.ceil(STORED_CHUNK[0] * ratio) + 3

    @property
    def ring_planes(self) -> int:
        """Planes of partial sums that are kept: a patch, and those that wait for a stored chunk to be complete."""
        return min(self.patch[0] + self.chunk_planes, self.lattice.shape[0])

    @property
    def sum_bytes(self) -> int:
        """What partial sums take, in memory or on disk, and what is made of them a group of channels at a time."""
        plane = 4 * math.prod(self.lattice.shape[1:])
        sums = (len(self.classes) * self.ring_planes + self.patch[0]) * plane
        return sums + self.leaving_bytes

    @property
    def spilled_bytes(self) -> int:
        """What of them is in memory at a time where they lie on disk: a row of patches, or a group of channels."""
        row = 4 * len(self.classes) * math.prod(self.patch[:2]) * self.lattice.shape[2]
        return max(row, self.leaving_bytes)

    @property
    def row_bytes(self) -> int:
        """The stored planes, as bytes, that a row of patches along z finishes; on their way during the next."""
        step = max((b - a for a, b in pairwise(self.starts[0])), default=self.patch[0])
        ratio = self.lattice.voxel_size_nm[0] / self.stored.voxel_size_nm[0]
        planes = min(math.ceil(step * ratio) + STORED_CHUNK[0], self.stored.shape[0])
        return len(self.classes) * planes * math.prod(self.stored.shape[1:])

    @property
    def channels_at_once(self) -> int:
        """Channels whose finished planes are carried to the stored grid together."""
        return max(1, min(len(self.classes), CHANNELS_BYTES // (4 * self.chunk_planes * self._plane_voxels)))

    @property
    def _plane_voxels(self) -> int:
        return max(math.prod(self.lattice.shape[1:]), math.prod(self.stored.shape[1:]))

    @property
    def leaving_bytes(self) -> int:
        """Weights and finished planes of a stored chunk, before and after they are carried, twice; planes as bytes."""
        floats = 4 * (4 * self.channels_at_once + 1) * self.chunk_planes * self._plane_voxels
        return floats + len(self.classes) * STORED_CHUNK[0] * math.prod(self.stored.shape[1:])

    @property
    def read_bytes(self) -> int:
        """The EM of several rows of patches: as it is read, as float32, and the rows before."""
        step = max((b - a for a, b in pairwise(self.starts[1])), default=0)
        height = min(self.lattice.shape[1], (ROWS_READ - 1) * step + self.patch[1])
        return 3 * 4 * self.patch[0] * height * self.lattice.shape[2]
