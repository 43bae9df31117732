"""Where voxels lie. All alignment is done here, in nanometres; every array travels with its Grid."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ensemble.core.box import Box, VoxelsZYX, zyx

NmZYX = tuple[float, float, float]
"""Lengths or positions in nm along z, y and x."""


def nm_zyx(values: Iterable[float]) -> NmZYX:
    """Three lengths. Raises ValueError for more or fewer."""
    z, y, x = values
    return float(z), float(y), float(x)


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxels, axes z, y, x.

    ``origin_nm`` is the centre of the first voxel, not its corner.
    """

    shape: VoxelsZYX
    voxel_size_nm: NmZYX
    origin_nm: NmZYX

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.voxel_size_nm) == len(self.origin_nm) == 3:
            raise ValueError("a grid has three axes: z, y, x")
        object.__setattr__(self, "shape", zyx(self.shape))
        object.__setattr__(self, "voxel_size_nm", nm_zyx(self.voxel_size_nm))
        object.__setattr__(self, "origin_nm", nm_zyx(self.origin_nm))
        if min(self.shape) < 1:
            raise ValueError(f"a grid has at least one voxel along each axis, not {self.shape}")
        if not all(v > 0 and math.isfinite(v) for v in self.voxel_size_nm):
            raise ValueError(f"voxel sizes are positive, not {self.voxel_size_nm}")
        if not all(math.isfinite(o) for o in self.origin_nm):
            raise ValueError(f"an origin is finite, not {self.origin_nm}")

    @property
    def box(self) -> Box:
        """All its voxels."""
        return Box.of_shape(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def voxel_volume_nm3(self) -> float:
        return math.prod(self.voxel_size_nm)

    @property
    def corner_nm(self) -> NmZYX:
        """The lower edge of the first voxel."""
        return nm_zyx(o - v / 2 for o, v in zip(self.origin_nm, self.voxel_size_nm, strict=True))

    @property
    def end_nm(self) -> NmZYX:
        """The upper edge of the last voxel."""
        return nm_zyx(c + n * v for c, n, v in zip(self.corner_nm, self.shape, self.voxel_size_nm, strict=True))

    def centres_nm(self, axis: int) -> NDArray[np.float64]:
        """Centres of the voxels along ``axis``."""
        return self.origin_nm[axis] + np.arange(self.shape[axis], dtype=np.float64) * self.voxel_size_nm[axis]

    @overload
    def position_voxels(self, axis: int, nm: float) -> float: ...

    @overload
    def position_voxels(self, axis: int, nm: NDArray[np.float64]) -> NDArray[np.float64]: ...

    def position_voxels(self, axis: int, nm: Any) -> Any:
        """Fractional index along ``axis`` of a position in nm; 0 is the centre of the first voxel."""
        return (nm - self.origin_nm[axis]) / self.voxel_size_nm[axis]

    def sub(self, box: Box) -> "Grid":
        """The grid of a box, whose bounds may lie outside this grid (context beyond a border)."""
        return _sub(self, box)

    def box_over(self, other: "Grid", margin_voxels: Sequence[int] = (0, 0, 0)) -> Box:
        """Voxels of this grid that touch ``other``'s extent, ``margin_voxels`` more on every side.

        The bounds are not clipped: they may be negative or beyond the shape.
        """
        start, stop = [], []
        for axis in range(3):
            low = self.position_voxels(axis, other.corner_nm[axis]) + 0.5
            high = self.position_voxels(axis, other.end_nm[axis]) + 0.5
            start.append(math.floor(low + 1e-6))
            stop.append(max(math.ceil(high - 1e-6), start[-1] + 1))
        return Box(zyx(start), zyx(stop)).grown(margin_voxels)

    def covering(self, voxel_size_nm: NmZYX) -> "Grid":
        """The smallest grid of ``voxel_size_nm`` with this grid's lower corner that covers its extent."""
        shape = zyx(
            max(1, math.ceil((e - c) / v - 1e-6))
            for c, e, v in zip(self.corner_nm, self.end_nm, voxel_size_nm, strict=True)
        )
        origin = nm_zyx(c + v / 2 for c, v in zip(self.corner_nm, voxel_size_nm, strict=True))
        return Grid(shape, voxel_size_nm, origin)

    def matches(self, other: "Grid", tolerance_voxels: float = 1e-3) -> bool:
        """Whether both grids have the same voxels, to ``tolerance_voxels`` of a voxel at the far corner."""
        if self.shape != other.shape:
            return False
        near = all(
            abs(a - b) <= tolerance_voxels * v
            for a, b, v in zip(self.origin_nm, other.origin_nm, self.voxel_size_nm, strict=True)
        )
        far = all(
            abs(a - b) <= tolerance_voxels * v
            for a, b, v in zip(self.end_nm, other.end_nm, self.voxel_size_nm, strict=True)
        )
        return near and far


@lru_cache(maxsize=1024)  # asked again by every class of a tile
def _sub(grid: Grid, box: Box) -> Grid:
    origin = (o + a * v for o, a, v in zip(grid.origin_nm, box.start, grid.voxel_size_nm, strict=True))
    return Grid(shape=box.shape, voxel_size_nm=grid.voxel_size_nm, origin_nm=nm_zyx(origin))


FIT_TOLERANCE = 0.01


@dataclass(frozen=True)
class LevelFit:
    """Which level of a pyramid a network of some voxel size reads.

    ``exact``: the level's voxels are the network's, to FIT_TOLERANCE; else it is resampled.
    ``upsampled``: along some axis the level is coarser than the network's voxels.
    """

    level: int
    exact: bool
    upsampled: bool


def fitting_level(levels: Sequence[Grid], voxel_size_nm: NmZYX) -> LevelFit:
    """The level that has ``voxel_size_nm``; else the coarsest that is nowhere coarser; else the finest."""
    finest_first = sorted(range(len(levels)), key=lambda i: math.prod(levels[i].voxel_size_nm))
    fitting = finest_first[0]
    for index in finest_first:
        ratios = [v / w for v, w in zip(levels[index].voxel_size_nm, voxel_size_nm, strict=True)]
        if all(abs(r - 1) <= FIT_TOLERANCE for r in ratios):
            return LevelFit(index, exact=True, upsampled=False)
        if all(r <= 1 + FIT_TOLERANCE for r in ratios):
            fitting = index
    pairs = zip(levels[fitting].voxel_size_nm, voxel_size_nm, strict=True)
    return LevelFit(fitting, exact=False, upsampled=any(v > w * (1 + FIT_TOLERANCE) for v, w in pairs))
