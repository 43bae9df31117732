"""From stored probabilities to a crop's final arrays: mix, decide, filter, label; block by block.

A crop's whole segmentation is one volume of codeword numbers (see ``core.codebook``); classes that stand alone
are decided in codebooks of one class. Memory is a few blocks and slabs, and a row per object. Everything that
is finished is noted in a journal, so that a crop begun before goes on where it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ensemble.core import (
    CHUNK,
    Box,
    BoxArray,
    Codebook,
    DecodingChanges,
    Grid,
    ancestors_first,
    blocks,
    codebook_of,
    is_instance,
    slabs,
    zyx,
)
from ensemble.decode.codeword_volume import CodewordVolume, mask_of
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import DecidedBand, TileDecoder, decoder_for
from ensemble.methods import Components, KeptObjects, LabelledObjects, ReadBlock, Split, SplitInput, Stage, Step
from ensemble.plan import Budget, CropPlan, EmptySource, Route
from ensemble.support import EnsembleError, in_threads

Item = TypeVar("Item")
Bounds = Sequence[Sequence[int]]
"""Where a box starts and stops, as a journal keeps it."""


class JournalLike(Protocol):
    """What of a group was finished before, and where to note what is finished now."""

    def noted(self, word: str) -> list[Any]:
        """Everything noted under this word, in order."""
        ...

    def note(self, word: str, value: Any) -> None: ...


class NullJournal:
    """A journal for work that is not resumed."""

    def noted(self, word: str) -> list[Any]:
        return []

    def note(self, word: str, value: Any) -> None:
        pass


class LayoutChanged(EnsembleError):
    """A journal was written under another size of chunks or bands: the group is to be begun anew."""


class MakeArray(Protocol):
    """Gives an array of zeros on the crop's grid by name, or with ``keep`` the one of that name as it was left."""

    def __call__(self, name: str, dtype: np.dtype[Any], *, keep: bool = False) -> BoxArray: ...


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group: what joint decoding changed, and objects written by instance class.

    ``highest``: by "class source" the highest stored value, where it is only assumed what it stands for.
    """

    decoding: DecodingChanges = field(default_factory=DecodingChanges)
    objects: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CropAssembly:
    """Everything needed to assemble one crop.

    ``scratch`` gives arrays to work in, ``create`` a class's final one.
    """

    plan: CropPlan
    probability: Probability
    scratch: MakeArray
    create: MakeArray
    budget: Budget = field(default_factory=Budget)
    progress: Callable[[str, float], None] = lambda what, share: None
    say: Callable[[str], None] = lambda line: None

    @property
    def grid(self) -> Grid:
        return self.plan.target.grid


def groups_of(plan: CropPlan, *, joint: bool) -> list[tuple[str, ...]]:
    """The classes of a crop that are decided together: all claimed ones, or each alone; each empty one alone."""
    claimed = [plan.claimed] if joint and plan.claimed else [(name,) for name in plan.claimed]
    return [*claimed, *((name,) for name in plan.unclaimed)]


def assemble_group(
    crop: CropAssembly, group: Sequence[str], *, joint: bool, journal: JournalLike | None = None
) -> GroupOutcome:
    """Write the arrays of one group of classes (see ``groups_of``).

    Raises LayoutChanged where the journal was written under another layout.
    """
    outcome = GroupOutcome()
    if all(isinstance(crop.plan.routes[name].source, EmptySource) for name in group):
        for name in group:
            crop.create(name, np.dtype(np.uint8))
        return outcome
    for name in [*group, *_seeding(crop.plan.routes, group)]:
        _fill_holes(crop, name)
    _Group(crop, group, joint, journal or NullJournal(), outcome).run()
    return outcome


def _seeding(routes: Mapping[str, Route], group: Sequence[str]) -> list[str]:
    """Classes outside the group that seeds are taken from."""
    seeds = (step.seeds_from for name in group for step in routes[name].steps)
    return list(dict.fromkeys(name for name in seeds if name is not None and name not in group))


def _fill_holes(crop: CropAssembly, name: str) -> None:
    """Find the holes of a class that its route fills, and have its probability raised there."""
    route = crop.plan.routes[name]
    steps = route.of_stage(Stage.FILL)
    if not steps or isinstance(route.source, EmptySource):
        return
    mask = crop.scratch(f"{name} mask", np.dtype(np.uint8))
    parts = blocks(crop.grid.shape)
    for block in _progressing(crop, f"{name}: holes", parts, len(parts)):
        mask[block] = (crop.probability.unfilled(name, block) > route.threshold).astype(np.uint8)
    background = Components.of(crop.grid, lambda box: np.asarray(mask[box]) == 0, connectivity=6)
    holes = KeptObjects(background, ~background.objects.touches_border)
    for step in steps:
        holes = KeptObjects(holes, step(holes.objects))
    filled = crop.scratch(f"{name} holes", np.dtype(np.uint8))
    for slab in slabs(crop.grid.shape):
        touched = holes.touched(slab)
        if touched is not None:
            box = touched.whole_chunks(CHUNK).intersect(crop.grid.box)
            filled[box] = (holes.read(box) > 0).astype(np.uint8)
    crop.probability.fill(name, filled)


class _Group:
    """Classes decided together: their codebook, and the volume of its codewords."""

    def __init__(
        self, crop: CropAssembly, names: Sequence[str], joint: bool, journal: JournalLike, outcome: GroupOutcome
    ) -> None:
        self.crop, self.joint, self.journal, self.outcome = crop, joint, journal, outcome
        self.book: Codebook = codebook_of(tuple(names))
        codes = crop.scratch("codes", np.dtype(np.uint8), keep=bool(journal.noted("decided")))
        self.volume = CodewordVolume(self.book, codes, crop.grid.shape)
        decoder = decoder_for(self.book, crop.plan.routes, joint=joint)
        self.tiles = TileDecoder(self.volume, crop.probability, decoder, crop.budget, joint)

    def run(self) -> None:
        self._agree_on_layout()
        self._decide()
        for entry in self.journal.noted("objects"):
            self.outcome.objects[entry["class"]] = entry["objects"]
        written = {entry["class"] for entry in self.journal.noted("objects") if entry["written"]}
        for entry in self.journal.noted("finished"):
            self._now_hold(entry["lost"], entry["words"])
        finished = {entry["class"] for entry in self.journal.noted("finished")}
        semantic_first = sorted(ancestors_first(self.book.classes), key=is_instance)
        for name in semantic_first:
            steps = self.crop.plan.routes[name].of_stage(Stage.LABEL, Stage.FILTER)
            if any(step.labels or step.method.stage is Stage.FILTER for step in steps) and name not in finished:
                written |= self._objects(name, steps)
        self._write_masks([name for name in self.book.classes if name not in written])

    def _agree_on_layout(self) -> None:
        layout = [list(sizes) for sizes in self.tiles.layout()]
        noted = self.journal.noted("layout")
        if noted and noted[0] != layout:
            raise LayoutChanged(f"crop {self.crop.plan.target.crop} was begun in other pieces")
        if not noted:
            self.journal.note("layout", layout)

    # -- deciding

    def _decide(self) -> None:
        before = [DecidedBand.of(entry) for entry in self.journal.noted("decided")]
        bands = self.tiles.bands()
        what = "decide" if self.joint else f"{self.book.classes[0]}: decide"
        for decided in before:
            self._take(bands[decided.number], decided)
        open_bands = sorted(set(range(len(bands))) - {decided.number for decided in before})
        for decided in _progressing(self.crop, what, self.tiles.decide(open_bands), len(open_bands)):
            self.journal.note("decided", decided.as_plain())
            self._take(bands[decided.number], decided)

    def _take(self, band: Box, decided: DecidedBand) -> None:
        for block, words in zip(self.volume.blocks_in(band), decided.words, strict=True):
            self.volume.now_hold(block, words)
        self.outcome.decoding.add(decided.changes)
        for key, value in decided.highest.items():
            self.outcome.highest[key] = max(value, self.outcome.highest.get(key, 0))

    # -- objects

    def _objects(self, name: str, steps: Sequence[Step]) -> set[str]:
        """Find, filter and write a class's objects; the class's name if its array is written with that."""
        entry = next((e for e in self.journal.noted("objects") if e["class"] == name), None)
        if entry is None:
            labelled, boxes = self._labelled(name, steps)
            # labels are read off the mask as decided, so they are written before the mask loses anything
            write = any(step.labels for step in steps)
            if write:
                self._write_labels(name, labelled)
            lost = [[block.start, block.stop] for block in self._find_lost(name, labelled, boxes)]
            entry = {"class": name, "objects": len(labelled.objects), "written": write, "lost": lost}
            self.journal.note("objects", entry)
            self.outcome.objects[name] = len(labelled.objects)
        words = self._lose(name, entry["lost"])
        self._now_hold(entry["lost"], words)
        self.journal.note("finished", {"class": name, "lost": entry["lost"], "words": words})
        return {name} if entry["written"] else set()

    def _labelled(self, name: str, steps: Iterable[Step]) -> tuple[LabelledObjects, list[NDArray[np.int64]]]:
        """The class's objects after its chain, and the boxes (n, 2, 3) of those its filters dropped."""
        crop = self.crop

        def mask(box: Box) -> NDArray[np.bool_]:
            return self.volume.mask(name, box)

        needs_probability = any(step.method.traits.needs_probability for step in steps)
        crop.progress(f"{name}: components", 0.0)
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
                crop.progress(f"{name}: {step.method.name}", 0.0)
                scratch = crop.scratch("objects", np.dtype(np.uint32))
                labelled = Split.of(
                    SplitInput(labelled, crop.grid, step, mask, scratch, self._seeds(name, step)),
                    workers=crop.budget.workers,
                    say=lambda line: crop.say(f"crop {crop.plan.target.crop}, {name}: {line}"),
                    memory_bytes=crop.budget.split_bytes,
                )
        return labelled, dropped

    def _seeds(self, name: str, step: Step) -> ReadBlock | None:
        if step.method.traits.needs_ids:
            return lambda box: self._ids(name, box)
        other = step.seeds_from
        if other is None:
            return None
        threshold = self.crop.plan.routes[other].threshold
        return lambda box: self.crop.probability.of(other, box) > threshold

    def _ids(self, name: str, box: Box) -> NDArray[Any]:
        ids = self.crop.probability.ids(name, box)
        return np.zeros(box.shape, np.uint8) if ids is None else ids

    def _find_lost(self, name: str, labelled: LabelledObjects, boxes: Sequence[NDArray[np.int64]]) -> list[Box]:
        """Mark the voxels of dropped objects in the scratch array "lost"; the chunks that hold any."""
        touched = self.volume.blocks_touching(np.concatenate([np.zeros((0, 2, 3), np.int64), *boxes]))
        if not touched:
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8))
        holding = []
        for block in touched:
            gone = self.volume.mask(name, block) & (labelled.read(block) == 0)
            if gone.any():
                marks[block] = gone.astype(np.uint8)
                holding.append(block)
        return holding

    def _lose(self, name: str, lost: Sequence[Bounds]) -> list[list[int]]:
        """Decide the marked voxels of these chunks again; which words each holds then."""
        if not lost:
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8), keep=True)
        return self.tiles.again(name, [_box(bounds) for bounds in lost], marks)

    def _now_hold(self, lost: Sequence[Bounds], words: Sequence[Sequence[int]]) -> None:
        for bounds, words_now in zip(lost, words, strict=True):
            self.volume.now_hold(_box(bounds), words_now)

    # -- writing

    def _write_labels(self, name: str, labelled: LabelledObjects) -> None:
        dtype = np.min_scalar_type(len(labelled.objects))
        out = self.crop.create(name, dtype)
        parts = slabs(self.crop.grid.shape, self.volume.chunk[0])
        for slab in _progressing(self.crop, f"{name}: labels", parts, len(parts)):
            touched = labelled.touched(slab)
            if touched is not None:
                box = touched.whole_chunks(CHUNK).intersect(self.crop.grid.box)
                out[box] = labelled.read(box).astype(dtype)

    def _write_masks(self, names: Sequence[str]) -> None:
        begun = bool(self.journal.noted("masks begun"))
        outs = {name: self.crop.create(name, np.dtype(np.uint8), keep=begun) for name in names}
        if not begun:
            self.journal.note("masks begun", True)
        finished = set(self.journal.noted("masks"))
        open_blocks = [
            (number, block)
            for number, block in enumerate(self.volume.blocks())
            if number not in finished and self.volume.words_of(block).any()
        ]
        done = in_threads(self.crop.budget.workers, lambda item: self._write_block(outs, *item), open_blocks)
        for number in _progressing(self.crop, "masks", done, len(open_blocks)):
            self.journal.note("masks", number)

    def _write_block(self, outs: Mapping[str, BoxArray], number: int, block: Box) -> int:
        codes, words = np.asarray(self.volume.codes[block]), self.volume.words_of(block)
        for name, out in outs.items():
            mask = mask_of(codes, words, self.book.holds(name))
            if mask is not None and mask.any():
                out[block] = mask.view(np.uint8)
        return number


def _box(bounds: Bounds) -> Box:
    """A box as a journal keeps it."""
    start, stop = bounds
    return Box(zyx(start), zyx(stop))


def _progressing(crop: CropAssembly, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    for index, item in enumerate(items):
        crop.progress(what, index / max(total, 1))
        yield item
    crop.progress(what, 1.0)
