"""A box of voxels: where it begins and where it ends, axes z, y, x. All arithmetic of blocks is done here."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

VoxelsZYX = tuple[int, int, int]
"""Counts or places of voxels along z, y and x."""

Slices = tuple[slice, slice, slice]


def zyx(values: Iterable[int]) -> VoxelsZYX:
    """Three whole numbers. Raises ValueError for more or fewer."""
    z, y, x = values
    return int(z), int(y), int(x)


@dataclass(frozen=True)
class Box:
    """The voxels from ``start`` up to, without, ``stop``, along each axis.

    Bounds may be negative or lie beyond an array (context around a crop). A box may be empty: along an axis
    where it is, ``stop`` equals ``start``. Raises ValueError where ``stop`` lies before ``start``.
    """

    start: VoxelsZYX
    stop: VoxelsZYX

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", zyx(self.start))
        object.__setattr__(self, "stop", zyx(self.stop))
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"a box ends no earlier than it begins, not {self.start} to {self.stop}")

    @classmethod
    def of_shape(cls, shape: Iterable[int]) -> Self:
        """All voxels of an array."""
        return cls((0, 0, 0), zyx(shape))

    @classmethod
    def at(cls, start: Iterable[int], shape: Iterable[int]) -> Self:
        """The box of ``shape`` that begins at ``start``."""
        begins = zyx(start)
        return cls(begins, _plus(begins, zyx(shape)))

    @property
    def shape(self) -> VoxelsZYX:
        return _minus(self.stop, self.start)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> Slices:
        """Index into an array whose first voxel is voxel 0; only right where no bound is negative."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def along(self, axis: int) -> range:
        """The voxels along one axis."""
        return range(self.start[axis], self.stop[axis])

    def with_axis(self, axis: int, start: int, stop: int) -> Self:
        """The same along the other axes, other bounds along this one."""
        return type(self)(
            zyx(start if a == axis else v for a, v in enumerate(self.start)),
            zyx(stop if a == axis else v for a, v in enumerate(self.stop)),
        )

    def intersect(self, other: "Box") -> Self:
        """What lies in both; where they do not meet along an axis it is empty there, and begins inside this box."""
        start = zyx(min(max(a, b), end) for a, b, end in zip(self.start, other.start, self.stop, strict=True))
        stop = zyx(max(min(a, b), s) for a, b, s in zip(self.stop, other.stop, start, strict=True))
        return type(self)(start, stop)

    def union(self, other: "Box") -> Self:
        """The smallest box around both."""
        return type(self)(
            zyx(min(pair) for pair in zip(self.start, other.start, strict=True)),
            zyx(max(pair) for pair in zip(self.stop, other.stop, strict=True)),
        )

    def within(self, other: "Box") -> bool:
        """Whether every voxel lies in ``other``; an empty box lies in any."""
        return self.size == 0 or self.intersect(other) == self

    def meets(self, other: "Box") -> bool:
        """Whether they have a voxel in common."""
        return self.intersect(other).size > 0

    def shifted(self, by_voxels: Sequence[int]) -> Self:
        by = zyx(by_voxels)
        return type(self)(_plus(self.start, by), _plus(self.stop, by))

    def relative_to(self, other: "Box") -> Self:
        """The same voxels counted from where ``other`` begins: the index into an array that holds ``other``."""
        return self.shifted(_minus((0, 0, 0), other.start))

    def grown(self, margin_voxels: int | Sequence[int]) -> Self:
        """Larger by a margin on both sides of each axis."""
        margin = zyx([margin_voxels] * 3 if isinstance(margin_voxels, int) else margin_voxels)
        return type(self)(_minus(self.start, margin), _plus(self.stop, margin))

    def to_chunks(self, chunk_shape: Sequence[int]) -> Self:
        """The box of the indices of the chunks that it touches; empty where it is."""
        c = zyx(chunk_shape)
        start = zyx(a // n for a, n in zip(self.start, c, strict=True))
        ends = zip(self.start, self.stop, start, c, strict=True)
        return type(self)(start, zyx(-(-b // n) if b > a else first for a, b, first, n in ends))

    def of_chunks(self, chunk_shape: Sequence[int]) -> Self:
        """The voxels of the chunks whose indices these are; the last may reach beyond an array."""
        c = zyx(chunk_shape)
        return type(self)(_times(self.start, c), _times(self.stop, c))

    def whole_chunks(self, chunk_shape: Sequence[int]) -> Self:
        """The voxels of every chunk that it touches."""
        return self.to_chunks(chunk_shape).of_chunks(chunk_shape)

    def indices(self) -> Iterator[VoxelsZYX]:
        """Every voxel, or chunk, in C order."""
        return product(self.along(0), self.along(1), self.along(2))

    def tiles(self, tile_shape: Sequence[int]) -> Iterator[Self]:
        """Boxes of at most ``tile_shape``, beginning where this one does, that cover it once, in C order."""
        z, y, x = zyx(tile_shape)
        for start in product(
            range(self.start[0], self.stop[0], z),
            range(self.start[1], self.stop[1], y),
            range(self.start[2], self.stop[2], x),
        ):
            stop = zyx(min(b, a + n) for a, b, n in zip(start, self.stop, (z, y, x), strict=True))
            yield type(self)(start, stop)


def _plus(a: VoxelsZYX, b: VoxelsZYX) -> VoxelsZYX:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _minus(a: VoxelsZYX, b: VoxelsZYX) -> VoxelsZYX:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _times(a: VoxelsZYX, b: VoxelsZYX) -> VoxelsZYX:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]
