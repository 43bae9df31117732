"""Annotated crops as a network sees them: EM and truth on the network's own lattice of voxels.

Blocks of the lattice are computed on first use and the last used are kept, so that after a short while a
patch costs a copy, whatever had to be resampled, and memory does not grow with the crops.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.box import Slices
from ensemble.core.grid import Grid, fitting_level
from ensemble.core.resampling import resample, support
from ensemble.storage import volume
from ensemble.storage.tissue import Tissue, find_tissue
from ensemble.storage.volume import Location, Volume
from ensemble.support.errors import TrainingError, VolumeError
from ensemble.train.spec import TrainingSpec

SURE, UNKNOWN = 254, 255
"""A truth code up to SURE says that code / SURE of the voxel is of the class; UNKNOWN, that nobody knows."""

BLOCK_VOXELS = 64
SOURCE_VOXELS = 256  # along an axis, of the truth or EM that one block is computed from
CACHE_BYTES = 384 << 20

Triple = tuple[int, int, int]
Where = Callable[[], str]


@dataclass(frozen=True)
class Patch:
    """A box of a crop: ``grey`` float32 (z, y, x) as in the EM, ``codes`` uint8 (class, z, y, x)."""

    grey: np.ndarray
    codes: np.ndarray


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
    level_start: Triple

    def starts(self, patch_voxels: Triple) -> list[tuple[int, int]]:
        """First and last start, along each axis, of a patch inside the crop, or around it if shorter."""
        spare = [n - p for n, p in zip(self.grid.shape, patch_voxels, strict=True)]
        return [(min(0, s), max(0, s)) for s in spare]

    def block_voxels(self) -> Triple:
        """The shape of the blocks in which the crop is computed, so that none needs much of the source."""
        sources = [self.tissue.volume.grid, *(v.grid for parts in self.truths if parts for v in parts)]
        finest = [min(grid.voxel_size_nm[axis] for grid in sources) for axis in range(3)]
        ratios = [v / f for v, f in zip(self.grid.voxel_size_nm, finest, strict=True)]
        return tuple(max(1, min(BLOCK_VOXELS, int(SOURCE_VOXELS / ratio))) for ratio in ratios)

    def grey(self, box: Slices) -> np.ndarray:
        """The EM in a box of the lattice, which may reach beyond it; float32, or of the level's dtype."""
        if self.reads_level:
            return self.tissue.read(tuple(_shifted(s, a) for s, a in zip(box, self.level_start, strict=True)))
        target, level = self.grid.sub(box), self.tissue.volume.grid
        block = level.slices_over(target, (1, 1, 1))
        return resample(self.tissue.read(block), level.sub(block), target)

    def codes(self, box: Slices) -> tuple[np.ndarray, ...]:
        """The truth in such a box, uint8 per class; a class that is the same all over takes no memory."""
        target = self.grid.sub(box)
        return tuple(_compact(_codes(parts, target)) for parts in self.truths)

    def identity(self) -> str:
        """Changes when the EM or the truth on disk does."""
        level = self.tissue.volume
        parts = [level.identity(level.grid.clip(level.grid.slices_over(self.grid)))]
        for v in (v for truth in self.truths if truth for v in truth):
            parts.append(v.identity(tuple(slice(0, n) for n in v.grid.shape)))
        return " ".join([self.dataset, self.name, *parts])


def _shifted(s: slice, by: int) -> slice:
    return slice(s.start + by, s.stop + by)


def _codes(parts: tuple[Volume, ...] | None, target: Grid) -> np.ndarray:
    if parts is None:
        return np.full(target.shape, UNKNOWN, np.uint8)
    share = np.zeros(target.shape, np.float32)
    known = np.ones(target.shape, bool)
    for part in parts:
        known &= _within(part.grid, target)
        block = support(part.grid, target)
        labels = part.read(block) > 0
        if labels.any():
            share += resample(labels, part.grid.sub(block), target)
    # Parts exclude each other, so their shares of a voxel add up to the union's.
    codes = np.rint(np.minimum(share, 1) * SURE).astype(np.uint8)
    codes[~known] = UNKNOWN
    return codes


def _within(source: Grid, target: Grid) -> np.ndarray:
    """Which voxels of ``target`` have their centre inside the extent of ``source``."""
    inside = []
    for axis in range(3):
        position = source.position_voxels(axis, target.centres_nm(axis))
        inside.append((position > -0.5 - 1e-6) & (position < source.shape[axis] - 0.5 + 1e-6))
    return inside[0][:, None, None] & inside[1][:, None] & inside[2]


def _compact(codes: np.ndarray) -> np.ndarray:
    first = codes[:1, :1, :1]
    return np.broadcast_to(first.copy(), codes.shape) if (codes == first).all() else codes


def open_crop(root: Location, dataset: str, name: str, spec: TrainingSpec, where: Where) -> AnnotatedCrop:
    """The crop on the lattice of the spec's network; ``where()`` tells where the spec names it.

    Raises TrainingError when none of the spec's classes is annotated there, VolumeError when the EM or a
    truth array cannot be read.
    """
    truths = _truths(root, dataset, name, spec.classes, where)
    extent = _extent([v.grid for parts in truths if parts for v in parts])
    levels = volume.open_em(root, dataset).levels
    fit = fitting_level([level.grid for level in levels], spec.voxel_size_nm)
    level = levels[fit.level]
    core = level.grid.slices_over(extent)
    lattice = level.grid.sub(core) if fit.exact else extent.covering(spec.voxel_size_nm)
    margin = [
        math.ceil((1 + max(0, p - n)) * v / w) + 1
        for p, n, v, w in zip(
            spec.patch_voxels, lattice.shape, lattice.voxel_size_nm, level.grid.voxel_size_nm, strict=True
        )
    ]
    wanted = tuple(slice(s.start - m, s.stop + m) for s, m in zip(core, margin, strict=True))
    em = find_tissue(level, core, wanted)
    return AnnotatedCrop(dataset, name, lattice, em, truths, fit.exact, tuple(s.start for s in core))


def _truths(
    root: Location, dataset: str, name: str, classes: Sequence[str], where: Where
) -> tuple[tuple[Volume, ...] | None, ...]:
    place = volume.truth_place(root, dataset, name)

    @cache
    def annotated(wanted: str) -> Volume | None:
        return volume.open_volume(f"{place}/{wanted}") if _is_there(f"{place}/{wanted}") else None

    truths = []
    for wanted in classes:
        own = annotated(wanted)
        parts = [own] if own else [annotated(atom) for atom in sorted(taxonomy.atoms_of(wanted))]
        truths.append(None if None in parts else tuple(parts))
    if not any(truths):
        have = ", ".join(c for c in taxonomy.all_classes() if annotated(c)) or f"no truth at all in {place}"
        raise TrainingError(
            f"{where()}: none of {', '.join(classes)} is annotated in crop {name} of {dataset}; it has {have}"
        )
    return tuple(truths)


def _is_there(place: Location) -> bool:
    try:
        volume.open_node(place)
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
    return Grid((1, 1, 1), tuple(end - corner), tuple((corner + end) / 2))


def open_crops(
    root: Location, named: Mapping[str, Sequence[str]], spec: TrainingSpec, key: str
) -> tuple[AnnotatedCrop, ...]:
    """All crops of ``named``, the spec's ``key``; errors tell where the spec names the crop."""
    return tuple(
        open_crop(root, dataset, name, spec, lambda d=dataset, i=i: spec.where(key, d, i))
        for dataset, names in named.items()
        for i, name in enumerate(names)
    )
