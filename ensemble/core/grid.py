"""Where voxels lie. All alignment is done here, in nanometres; every array travels with its Grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Triple = tuple[float, float, float]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Grid:
    """A regular lattice of voxels, axes z, y, x.

    ``origin_nm`` is the centre of the first voxel, not its corner.
    """

    shape: tuple[int, int, int]
    voxel_size_nm: Triple
    origin_nm: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "voxel_size_nm", tuple(float(v) for v in self.voxel_size_nm))
        object.__setattr__(self, "origin_nm", tuple(float(o) for o in self.origin_nm))
        if not len(self.shape) == len(self.voxel_size_nm) == len(self.origin_nm) == 3:
            raise ValueError("a grid has three axes: z, y, x")
        if min(self.shape) < 1:
            raise ValueError(f"a grid has at least one voxel along each axis, not {self.shape}")
        if not all(v > 0 and math.isfinite(v) for v in self.voxel_size_nm):
            raise ValueError(f"voxel sizes are positive, not {self.voxel_size_nm}")
        if not all(math.isfinite(o) for o in self.origin_nm):
            raise ValueError(f"an origin is finite, not {self.origin_nm}")

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def voxel_volume_nm3(self) -> float:
        return math.prod(self.voxel_size_nm)

    @property
    def corner_nm(self) -> Triple:
        """The lower edge of the first voxel."""
        return tuple(o - v / 2 for o, v in zip(self.origin_nm, self.voxel_size_nm, strict=True))

    @property
    def end_nm(self) -> Triple:
        """The upper edge of the last voxel."""
        return tuple(c + n * v for c, n, v in zip(self.corner_nm, self.shape, self.voxel_size_nm, strict=True))

    def centres_nm(self, axis: int) -> np.ndarray:
        """Centres of the voxels along ``axis``, float64."""
        return self.origin_nm[axis] + np.arange(self.shape[axis]) * self.voxel_size_nm[axis]

    def position_voxels(self, axis: int, nm: np.ndarray | float) -> np.ndarray | float:
        """Fractional index along ``axis`` of a position in nm; 0 is the centre of the first voxel."""
        return (nm - self.origin_nm[axis]) / self.voxel_size_nm[axis]

    def sub(self, slices: Slices) -> "Grid":
        """The grid of a block; its bounds may lie outside this grid (context beyond a border)."""
        start = [s.start or 0 for s in slices]
        stop = [n if s.stop is None else s.stop for s, n in zip(slices, self.shape, strict=True)]
        return Grid(
            shape=tuple(b - a for a, b in zip(start, stop, strict=True)),
            voxel_size_nm=self.voxel_size_nm,
            origin_nm=tuple(o + a * v for o, a, v in zip(self.origin_nm, start, self.voxel_size_nm, strict=True)),
        )

    def slices_over(self, other: "Grid", margin_voxels: Sequence[int] = (0, 0, 0)) -> Slices:
        """Voxels of this grid that touch ``other``'s extent, ``margin_voxels`` more on every side.

        The bounds are not clipped: they may be negative or beyond the shape.
        """
        bounds = []
        for axis in range(3):
            low = self.position_voxels(axis, other.corner_nm[axis]) + 0.5
            high = self.position_voxels(axis, other.end_nm[axis]) + 0.5
            start, stop = math.floor(low + 1e-6), math.ceil(high - 1e-6)
            bounds.append(slice(start - margin_voxels[axis], max(stop, start + 1) + margin_voxels[axis]))
        return tuple(bounds)

    def clip(self, slices: Slices) -> Slices:
        """``slices`` cut to this grid's shape (possibly empty)."""
        return tuple(
            slice(min(max(s.start, 0), n), max(min(s.stop, n), 0)) for s, n in zip(slices, self.shape, strict=True)
        )

    def covering(self, voxel_size_nm: Triple) -> "Grid":
        """The smallest grid of ``voxel_size_nm`` with this grid's lower corner that covers its extent."""
        shape = tuple(
            max(1, math.ceil((e - c) / v - 1e-6))
            for c, e, v in zip(self.corner_nm, self.end_nm, voxel_size_nm, strict=True)
        )
        origin = tuple(c + v / 2 for c, v in zip(self.corner_nm, voxel_size_nm, strict=True))
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


FIT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Fit:
    """Which level of a pyramid a network of some voxel size reads.

    ``exact``: the level's voxels are the network's, to FIT_TOLERANCE; else it is resampled.
    ``upsampled``: along some axis the level is coarser than the network's voxels.
    """

    level: int
    exact: bool
    upsampled: bool


def fitting_level(levels: Sequence[Grid], voxel_size_nm: Triple) -> Fit:
    """The level that has ``voxel_size_nm``; else the coarsest that is nowhere coarser; else the finest."""
    finest_first = sorted(range(len(levels)), key=lambda i: math.prod(levels[i].voxel_size_nm))
    fitting = finest_first[0]
    for index in finest_first:
        ratios = [v / w for v, w in zip(levels[index].voxel_size_nm, voxel_size_nm, strict=True)]
        if all(abs(r - 1) <= FIT_TOLERANCE for r in ratios):
            return Fit(index, exact=True, upsampled=False)
        if all(r <= 1 + FIT_TOLERANCE for r in ratios):
            fitting = index
    pairs = zip(levels[fitting].voxel_size_nm, voxel_size_nm, strict=True)
    return Fit(fitting, exact=False, upsampled=any(v > w * (1 + FIT_TOLERANCE) for v, w in pairs))
