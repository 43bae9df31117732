"""The tasks that assembling a crop is made of: each alone with its own chunks, in whatever process.

Whoever has them done decides what to do next by what these return. A task may be done twice, by two workers at once,
one of them late and given up: it takes nothing away, reads chunks that are never overwritten, and writes whole ones
that are the same each time.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core import CHUNK, Box, BoxArray, Codebook, Grid, blocks, codebook_of, slabs, zyx
from ensemble.decode.codeword_volume import CodewordVolume, Layers, mask_of
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import DecidedBand, TileDecoder, decoder_for
from ensemble.engine import tell
from ensemble.methods import (
    Components,
    KeptObjects,
    LabelledObjects,
    NeedsMemory,
    ReadBlock,
    Split,
    SplitInput,
    Stage,
    Step,
)
from ensemble.plan import Budget, CropPlan

Bounds = Sequence[Sequence[int]]
"""Where a box starts and stops, as a journal keeps it."""

Present = NDArray[np.bool_]
"""Which words each chunk may hold: (chunks z, y, x, words)."""


class MakeArray(Protocol):
    """Gives an array on the crop's grid by name, as it was left; zeros where nothing was."""

    def __call__(self, name: str, dtype: np.dtype[Any]) -> BoxArray: ...


@dataclass(frozen=True)
class CropAssembly:
    """Everything needed to assemble one crop; where its arrays are files it can be sent to another process.

    ``scratch`` gives arrays to work in, ``final`` a class's own; in neither is anything of other groups of classes.
    """

    plan: CropPlan
    probability: Probability
    scratch: MakeArray
    final: MakeArray
    budget: Budget = field(default_factory=Budget)

    @property
    def grid(self) -> Grid:
        return self.plan.target.grid


@dataclass(frozen=True)
class Group:
    """Classes of a crop that are decided together. ``joint``: what that changes against each alone is counted."""

    crop: CropAssembly
    classes: tuple[str, ...]
    joint: bool

    @cached_property
    def book(self) -> Codebook:
        return codebook_of(self.classes)

    def volume(self, layers: Layers | None = None, present: Present | None = None) -> CodewordVolume:
        """The volume of its codewords, as far as it is decided."""

        def layer(lost: str) -> BoxArray:
            return self.crop.scratch(f"codes {lost}".strip(), np.dtype(np.uint8))

        return CodewordVolume(self.book, layer, self.crop.grid.shape, layers, present)

    def decoding(self, volume: CodewordVolume) -> TileDecoder:
        decoder = decoder_for(self.book, self.crop.plan.routes, joint=self.joint)
        return TileDecoder(volume, self.crop.probability, decoder, self.joint)


@dataclass(frozen=True)
class ClassObjects:
    """What became of a class's objects: how many, whether its array is written with that, which chunks lose voxels."""

    objects: int
    written: bool
    lost: list[list[list[int]]]
    said: tuple[str, ...] = ()


def find_holes(crop: CropAssembly, name: str) -> None:
    """Find the holes of a class that its route fills: in the scratch array "NAME holes", by way of "NAME mask"."""
    route = crop.plan.routes[name]
    mask = crop.scratch(f"{name} mask", np.dtype(np.uint8))
    for block in blocks(crop.grid.shape):
        mask[block] = (crop.probability.unfilled(name, block) > route.threshold).astype(np.uint8)
    background = Components.of(crop.grid, lambda box: np.asarray(mask[box]) == 0, connectivity=6)
    holes = KeptObjects(background, ~background.objects.touches_border)
    for step in route.of_stage(Stage.FILL):
        holes = KeptObjects(holes, step(holes.objects))
    filled = crop.scratch(f"{name} holes", np.dtype(np.uint8))
    for slab in slabs(crop.grid.shape):
        touched = holes.touched(slab)
        if touched is not None:
            box = touched.whole_chunks(CHUNK).intersect(crop.grid.box)
            filled[box] = (holes.read(box) > 0).astype(np.uint8)


def decide_bands(group: Group, numbers: Sequence[int]) -> list[DecidedBand]:
    """Decide bands by number."""
    tiles = group.decoding(group.volume())
    bands = tiles.bands()
    return [tiles.decide(number, bands[number]) for number in numbers]


def decide_again(group: Group, name: str, layers: Layers, lost: Sequence[Bounds]) -> list[list[int]]:
    """Decide the marked voxels of these chunks again without the class; which words each holds then."""
    tiles = group.decoding(group.volume(layers))
    marks = group.crop.scratch(f"{name} lost", np.dtype(np.uint8))
    return tiles.again(name, [box_of(bounds) for bounds in lost], marks)


def write_masks(
    group: Group, names: Sequence[str], layers: Layers, written: Sequence[tuple[Bounds, Sequence[int]]]
) -> None:
    """Write the masks of classes in chunks whose words are given."""
    volume = group.volume(layers)
    outs = {name: group.crop.final(name, np.dtype(np.uint8)) for name in names}
    for bounds, words in written:
        tell(None)  # who is given up writes no more
        block = box_of(bounds)
        codes = volume.codes(block)
        for name, out in outs.items():
            mask = mask_of(codes, np.asarray(words, np.int64), group.book.holds(name))
            if mask is not None and mask.any():
                out[block] = mask.view(np.uint8)


def find_objects(group: Group, name: str, layers: Layers, present: Present, lent_bytes: int) -> ClassObjects | int:
    """Find, filter and, where they are numbered, write a class's objects.

    Labels are read off the mask as decided, so they are written before the mask loses anything. Returns how many
    bytes cutting its largest component takes, where that is more than was lent.
    """
    try:
        return _ClassObjects(group, name, group.volume(layers, present), lent_bytes).found()
    except NeedsMemory as needs:
        return needs.needed_bytes


class _ClassObjects:
    def __init__(self, group: Group, name: str, volume: CodewordVolume, lent_bytes: int) -> None:
        self.crop, self.name, self.volume, self.lent_bytes = group.crop, name, volume, lent_bytes
        self.steps = self.crop.plan.routes[name].of_stage(Stage.LABEL, Stage.FILTER)
        self.said: list[str] = []

    def found(self) -> ClassObjects:
        labelled, boxes = self._labelled(self.steps)
        write = any(step.labels for step in self.steps)
        if write:
            self._write_labels(labelled)
        lost = [[list(block.start), list(block.stop)] for block in self._find_lost(labelled, boxes)]
        return ClassObjects(len(labelled.objects), write, lost, tuple(self.said))

    def _labelled(self, steps: Iterable[Step]) -> tuple[LabelledObjects, list[NDArray[np.int64]]]:
        """The class's objects after its chain, and the boxes (n, 2, 3) of those its filters dropped."""
        crop, name = self.crop, self.name

        def mask(box: Box) -> NDArray[np.bool_]:
            return self.volume.mask(name, box)

        needs_probability = any(step.method.traits.needs_probability for step in steps)
        labelled: LabelledObjects = Components.of(
            crop.grid,
            mask,
            probability=(lambda box: crop.probability.of(name, box)) if needs_probability else None,
            occupied=self.volume.occupied(name),
            workers=crop.budget.slab_workers(crop.grid),
        )
        dropped = []
        for step in steps:
            if step.method.stage is Stage.FILTER:
                keep = step(labelled.objects)
                dropped.append(np.stack([labelled.objects.start[~keep], labelled.objects.stop[~keep]], axis=1))
                labelled = KeptObjects(labelled, keep)
            elif not step.indivisible:
                # of its own, as parts of chunks are written
                scratch = crop.scratch(f"{name} objects {uuid.uuid4().hex}", np.dtype(np.uint32))
                labelled = Split.of(
                    SplitInput(labelled, crop.grid, step, mask, scratch, self._seeds(step)),
                    workers=crop.budget.workers,
                    say=lambda line: self.said.append(f"crop {crop.plan.target.crop}, {name}: {line}"),
                    memory_bytes=crop.budget.split_bytes,
                    lent_bytes=self.lent_bytes,
                )
        return labelled, dropped

    def _seeds(self, step: Step) -> ReadBlock | None:
        if step.method.traits.needs_ids:
            return self._ids
        other = step.seeds_from
        if other is None:
            return None
        threshold = self.crop.plan.routes[other].threshold
        return lambda box: self.crop.probability.of(other, box) > threshold

    def _ids(self, box: Box) -> NDArray[Any]:
        ids = self.crop.probability.ids(self.name, box)
        return np.zeros(box.shape, np.uint8) if ids is None else ids

    def _find_lost(self, labelled: LabelledObjects, boxes: Sequence[NDArray[np.int64]]) -> list[Box]:
        """Mark the voxels of dropped objects in the scratch array "NAME lost"; the chunks that hold any."""
        touched = self.volume.blocks_touching(np.concatenate([np.zeros((0, 2, 3), np.int64), *boxes]))
        if not touched:
            return []
        marks = self.crop.scratch(f"{self.name} lost", np.dtype(np.uint8))
        holding = []
        for block in touched:
            gone = self.volume.mask(self.name, block) & (labelled.read(block) == 0)
            if gone.any():
                marks[block] = gone.astype(np.uint8)
                holding.append(block)
        return holding

    def _write_labels(self, labelled: LabelledObjects) -> None:
        dtype = np.min_scalar_type(len(labelled.objects))
        out = self.crop.final(self.name, dtype)
        for slab in slabs(self.crop.grid.shape, self.volume.chunk[0]):
            touched = labelled.touched(slab)
            if touched is not None:
                tell(None)
                box = touched.whole_chunks(CHUNK).intersect(self.crop.grid.box)
                out[box] = labelled.read(box).astype(dtype)


def box_of(bounds: Bounds) -> Box:
    """A box as a journal keeps it."""
    start, stop = bounds
    return Box(zyx(start), zyx(stop))
