"""Annotated crops as a network sees them: EM and truth on the network's own lattice of voxels.

Blocks of the lattice are computed on first use and the last used are kept, so that after a short while a
patch costs a copy, whatever had to be resampled, and memory does not grow with the crops.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, all_classes, atoms_of, fitting_level, nm_zyx, resample, support, zyx
from ensemble.storage import Location, Tissue, Volume, find_tissue, open_em, open_node, open_volume, truth_place
from ensemble.support import TrainingError, VolumeError
from ensemble.train.spec import TrainingSpec
from ensemble.train.views import PLAIN, View

SURE, UNKNOWN = 254, 255
"""A truth code up to SURE says that code / SURE of the voxel is of the class; UNKNOWN, that nobody knows."""

BLOCK_VOXELS = 64
SOURCE_VOXELS = 256  # along an axis, of the truth or EM that one block is computed from

Where = Callable[[], str]


@dataclass(frozen=True)
class Patch:
    """A box of a crop, and the view in which it is shown.

    ``grey`` (z, y, x) as in the EM, uint8 where that is and is not resampled, else float32; ``codes`` uint8 (class, z,
    y, x).
    """

    grey: NDArray[np.uint8 | np.float32]
    codes: NDArray[np.uint8]
    view: View = PLAIN


@dataclass(frozen=True)
class AnnotatedCrop:
    """A crop on the lattice ``grid``, whose voxels are the network's and which covers what is annotated.

    ``truths`` holds for each class the arrays whose union it is, None where it is not annotated.
    ``reads_level`` says that the lattice is that of the EM's own level, so that grey values are not
    resampled; ``level_start`` is then the level's index of the lattice's first voxel.
    """

    dataset: str
    name: str
    grid: Grid
    tissue: Tissue
    truths: tuple[tuple[Volume, ...] | None, ...]
    reads_level: bool
    level_start: VoxelsZYX

    def starts(self, patch_voxels: VoxelsZYX) -> list[tuple[int, int]]:
        """First and last start, along each axis, of a patch inside the crop, or around it if shorter."""
        spare = [n - p for n, p in zip(self.grid.shape, patch_voxels, strict=True)]
        return [(min(0, s), max(0, s)) for s in spare]

    def block_voxels(self) -> VoxelsZYX:
        """The shape of the blocks in which the crop is computed, so that none needs much of the source."""
        sources = [self.tissue.volume.grid, *(v.grid for parts in self.truths if parts for v in parts)]
        finest = [min(grid.voxel_size_nm[axis] for grid in sources) for axis in range(3)]
        ratios = [v / f for v, f in zip(self.grid.voxel_size_nm, finest, strict=True)]
        return zyx(max(1, min(BLOCK_VOXELS, int(SOURCE_VOXELS / ratio))) for ratio in ratios)

    @property
    def grey_dtype(self) -> type[np.uint8] | type[np.float32]:
        """The type of its patches' grey values."""
        return np.uint8 if self.reads_level and self.tissue.volume.dtype == np.uint8 else np.float32

    def reach(self, patch_voxels: VoxelsZYX) -> Box:
        """All that patches of that shape may hold: the crop, and what is around it where it is shorter."""
        return self.grid.box.grown(zyx(max(0, p - n) for p, n in zip(patch_voxels, self.grid.shape, strict=True)))

    def grey(self, box: Box) -> NDArray[Any]:
        """The EM in a box of the lattice, which may reach beyond it; float32, or of the level's dtype."""
        if self.reads_level:
            return self.tissue.read(box.shifted(self.level_start))
        target, level = self.grid.sub(box), self.tissue.volume.grid
        around = level.box_over(target, (1, 1, 1))
        return resample(self.tissue.read(around), level.sub(around), target)

    def codes(self, box: Box) -> tuple[NDArray[np.uint8], ...]:
        """The truth in such a box, uint8 per class; a class that is the same all over takes no memory."""
        target = self.grid.sub(box)
        return tuple(_compact(_codes(parts, target)) for parts in self.truths)

    def identity(self) -> str:
        """Changes when the EM or the truth on disk does."""
        level = self.tissue.volume
        parts = [level.identity(level.grid.box_over(self.grid).intersect(level.grid.box))]
        for v in (v for truth in self.truths if truth for v in truth):
            parts.append(v.identity(v.grid.box))
        return " ".join([self.dataset, self.name, *parts])


def _codes(parts: tuple[Volume, ...] | None, target: Grid) -> NDArray[np.uint8]:
    if parts is None:
        return np.full(target.shape, UNKNOWN, np.uint8)
    share = np.zeros(target.shape, np.float32)
    known = np.ones(target.shape, bool)
    for part in parts:
        known &= _within(part.grid, target)
        around = support(part.grid, target)
        labels = part.read(around) > 0
        if labels.any():
            share += resample(labels, part.grid.sub(around), target)
    # Parts exclude each other, so their shares of a voxel add up to the union's.
    codes: NDArray[np.uint8] = np.rint(np.minimum(share, 1) * SURE).astype(np.uint8)
    codes[~known] = UNKNOWN
    return codes


def _within(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Which voxels of ``target`` have their centre inside the extent of ``source``."""
    inside = []
    for axis in range(3):
        position = source.position_voxels(axis, target.centres_nm(axis))
        inside.append((position > -0.5 - 1e-6) & (position < source.shape[axis] - 0.5 + 1e-6))
    return np.asarray(inside[0][:, None, None] & inside[1][:, None] & inside[2])


def _compact(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    first = codes[:1, :1, :1]
    return np.broadcast_to(first.copy(), codes.shape) if (codes == first).all() else codes


def open_crop(root: Location, dataset: str, name: str, spec: TrainingSpec, where: Where) -> AnnotatedCrop:
    """The crop on the lattice of the spec's network; ``where()`` tells where the spec names it.

    Raises TrainingError when none of the spec's classes is annotated there, VolumeError when the EM or a
    truth array cannot be read.
    """
    truths = _truths(root, dataset, name, spec.classes, where)
    extent = _extent([v.grid for parts in truths if parts for v in parts])
    levels = open_em(root, dataset).levels
    fit = fitting_level([level.grid for level in levels], spec.voxel_size_nm)
    level = levels[fit.level]
    core = level.grid.box_over(extent)
    lattice = level.grid.sub(core) if fit.exact else extent.covering(spec.voxel_size_nm)
    margin = [
        math.ceil((1 + max(0, p - n)) * v / w) + 1
        for p, n, v, w in zip(
            spec.patch_voxels, lattice.shape, lattice.voxel_size_nm, level.grid.voxel_size_nm, strict=True
        )
    ]
    em = find_tissue(level, core, core.grown(margin))
    return AnnotatedCrop(dataset, name, lattice, em, truths, fit.exact, core.start)


def _truths(
    root: Location, dataset: str, name: str, classes: Sequence[str], where: Where
) -> tuple[tuple[Volume, ...] | None, ...]:
    place = truth_place(root, dataset, name)

    @cache
    def annotated(wanted: str) -> Volume | None:
        return open_volume(f"{place}/{wanted}") if _is_there(f"{place}/{wanted}") else None

    truths: list[tuple[Volume, ...] | None] = []
    for wanted in classes:
        own = annotated(wanted)
        parts = [own] if own else [annotated(atom) for atom in sorted(atoms_of(wanted))]
        there = tuple(part for part in parts if part is not None)
        truths.append(there if len(there) == len(parts) else None)
    if not any(truths):
        have = ", ".join(c for c in all_classes() if annotated(c)) or f"no truth at all in {place}"
        raise TrainingError(
            f"{where()}: none of {', '.join(classes)} is annotated in crop {name} of {dataset}; it has {have}"
        )
    return tuple(truths)


def _is_there(place: Location) -> bool:
    try:
        open_node(place)
    except VolumeError as error:
        # Of truth, absence is ordinary; everything else is not.
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    return True


def _extent(grids: Sequence[Grid]) -> Grid:
    """One voxel as large as the box around all the grids."""
    corner = np.min([grid.corner_nm for grid in grids], axis=0)
    end = np.max([grid.end_nm for grid in grids], axis=0)
    return Grid((1, 1, 1), nm_zyx(end - corner), nm_zyx((corner + end) / 2))


def open_crops(
    root: Location, named: Mapping[str, Sequence[str]], spec: TrainingSpec, key: str
) -> tuple[AnnotatedCrop, ...]:
    """All crops of ``named``, the spec's ``key``; errors tell where the spec names the crop."""
    return tuple(
        open_crop(root, dataset, name, spec, partial(spec.where, key, dataset, i))
        for dataset, names in named.items()
        for i, name in enumerate(names)
    )


def grey_range(crops: Sequence[AnnotatedCrop], patch_voxels: VoxelsZYX) -> tuple[float, float] | None:
    """Lowest and highest grey value of what patches of the crops hold; None where there is no number."""
    seen: list[float] = []
    for crop in crops:
        for block in crop.reach(patch_voxels).tiles(crop.block_voxels()):
            grey = crop.grey(block)
            known = grey[np.isfinite(grey)] if grey.dtype.kind == "f" else grey
            seen = [min([*seen, float(known.min())]), max([*seen, float(known.max())])] if known.size else seen
    return (seen[0], seen[1]) if seen else None
