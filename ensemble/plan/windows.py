"""Where patches lie along each axis of a crop: over it, over EM around it, and over what fills up a patch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ensemble.core import Box, even_starts, patch_count, patch_starts, patch_step, zyx
from ensemble.plan.job import Starts
from ensemble.plan.recipe import ModelSource
from registry import Card


@dataclass(frozen=True)
class Windows:
    """``region`` is what patches cover, and their ``starts`` are counted from its first voxel; ``core`` is kept.

    ``for_context`` of the patches are there only for the context around the crop.
    """

    core: Box
    region: Box
    starts: Starts
    for_context: int


@dataclass(frozen=True)
class Windowing:
    """How a source's patches are laid: ``overlap`` of neighbours, and whether they show EM around the crop."""

    patch: tuple[int, int, int]
    overlap: float
    context: bool

    @classmethod
    def of(cls, source: ModelSource, card: Card) -> "Windowing":
        """As the recipe says, else as the card does."""
        overlap = card.overlap if source.overlap is None else source.overlap
        return cls(card.patch_voxels, overlap, card.context if source.context is None else source.context)

    def wanted(self, crop: Box) -> Box:
        """The crop with all the context that is of use: as much as patches overlap, and a voxel to interpolate."""
        return crop.grown([1 + math.ceil(p * self.overlap / 2) for p in self.patch])

    def looked_at(self, crop: Box) -> Box:
        """Where it matters whether there is EM: what is wanted, and what fills up a patch."""
        filling = crop.grown([max(0, p - n) for p, n in zip(self.patch, crop.shape, strict=True)])
        wanted = self.wanted(crop)
        return Box(
            zyx(map(min, filling.start, wanted.start)),
            zyx(map(max, filling.stop, wanted.stop)),
        )

    def over(self, crop: Box, neighbours: Sequence[int], there: Box) -> Windows:
        """The patches over a crop and its context, as far as there is EM.

        Of the voxels around the crop ``neighbours`` are kept along each axis, to interpolate towards.
        """
        core = _reaching(crop, crop.grown(neighbours), there)
        reach = _reaching(core, self.wanted(crop), there) if self.context else core
        region, starts, alone = core, [], 1
        for axis, patch in enumerate(self.patch):
            count = patches_along(
                len(crop.along(axis)), len(core.along(axis)), len(reach.along(axis)), patch, self.overlap
            )
            length = min(len(reach.along(axis)), patch + (count - 1) * patch_step(patch, self.overlap / 2))
            along = _widened(core.along(axis), length, reach.along(axis))
            along = _widened(along, patch, there.along(axis))
            missing = max(patch - len(along), 0)  # mirrored
            along = range(along.start - missing // 2, along.stop + missing - missing // 2)
            region = region.with_axis(axis, along.start, along.stop)
            monais = patch_starts(len(along), patch, self.overlap)
            starts.append(tuple(monais if len(monais) == count else even_starts(len(along), patch, count)))
            alone *= patch_count(len(crop.along(axis)), patch, self.overlap)
        z, y, x = starts
        return Windows(core, region, (z, y, x), math.prod(map(len, starts)) - alone)


def patches_along(crop: int, core: int, reach: int, patch: int, overlap: float) -> int:
    """How many patches an axis takes: of ``reach`` voxels with context, ``core`` that are kept, ``crop`` alone.

    They are as many as cover the crop, spread over the context as far as half their overlap lets them. More are taken
    only where there is half a patch of context or more: as many as cover all of it then.
    """
    covered = reach if 2 * (reach - crop) >= patch else core
    return max(patch_count(crop, patch, overlap), patch_count(covered, patch, overlap / 2))


def _reaching(crop: Box, outer: Box, there: Box) -> Box:
    """The crop's voxels and, where there is tissue, those around it as far as ``outer``."""
    start = (min(c, max(o, t)) for c, o, t in zip(crop.start, outer.start, there.start, strict=True))
    stop = (max(c, min(o, t)) for c, o, t in zip(crop.stop, outer.stop, there.stop, strict=True))
    return Box(zyx(start), zyx(stop))


def _widened(along: range, length: int, there: range) -> range:
    """The bounds moved apart to ``length`` if they are nearer, evenly where they can be, as far as there is tissue."""
    missing = max(length - len(along), 0)
    room_before, room_after = max(along.start - there.start, 0), max(there.stop - along.stop, 0)
    before = min(room_before, max(missing // 2, missing - room_after))
    return range(along.start - before, along.stop + min(room_after, missing - before))
