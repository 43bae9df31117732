"""From stored probabilities to a crop's final arrays: mix, decide, filter, label; block by block.

A crop's whole segmentation is one volume of codeword numbers (see ``consistency``); classes that stand alone
are decided in codebooks of one class. Memory is a few blocks and slabs, and a row per object. Everything that
is finished is written in a ``Journal``, so that a crop begun before goes on where it was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.box import Slices
from ensemble.core.codebook import Codebook, codebook_of
from ensemble.core.contradictions import DecodingChanges
from ensemble.core.grid import Grid
from ensemble.core.tiling import CHUNK, blocks, slabs
from ensemble.decode.codeword_volume import ArrayLike, CodewordVolume, member
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import TileDecoder, decoder_for
from ensemble.methods.components import Components, KeptObjects, LabelledObjects
from ensemble.methods.method_table import Stage, Step
from ensemble.methods.splitting import Split
from ensemble.plan.budget import Budget
from ensemble.plan.plan import CropPlan
from ensemble.plan.recipe import EmptySource, Route
from ensemble.support.machine import in_threads


class JournalLike(Protocol):
    """What of a group was finished before, and where to note what is finished now."""

    def noted(self, what: str) -> list[Any]:
        """Everything noted under this word, in order."""
        ...

    def note(self, what: str, value: Any) -> None: ...


class NullJournal:
    """A journal for work that is not resumed."""

    def noted(self, what: str) -> list[Any]:
        return []

    def note(self, what: str, value: Any) -> None:
        pass


@dataclass(frozen=True)
class GroupOutcome:
    """What became of a group: what joint decoding changed, and objects written by instance class."""

    decoding: DecodingChanges = field(default_factory=DecodingChanges)
    objects: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CropAssembly:
    """Everything needed to assemble one crop.

    ``scratch`` and ``create`` give an array of zeros on the target's grid by name and dtype, or with ``keep`` the
    array of that name as it was left: one to work in, and a class's final one.
    """

    plan: CropPlan
    probability: Probability
    scratch: Callable[..., ArrayLike]
    create: Callable[..., ArrayLike]
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
    """Write the arrays of one group of classes (see ``groups``)."""
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
    seeds = (step.parameters.get("seeds_from") for name in group for step in routes[name].steps)
    return list(dict.fromkeys(name for name in seeds if name is not None and name not in group))


def _fill_holes(crop: CropAssembly, name: str) -> None:
    """Find the holes of a class that its route fills, and have its probability raised there."""
    route = crop.plan.routes[name]
    steps = route.of_stage(Stage.FILL)
    if not steps or isinstance(route.source, EmptySource):
        return
    mask = crop.scratch(f"{name} mask", np.dtype(np.uint8))
    for block in _progressing(crop, f"{name}: holes", blocks(crop.grid.shape)):
        mask[block] = (crop.probability.unfilled(name, block) > route.threshold).astype(np.uint8)
    background = Components(crop.grid, lambda block: np.asarray(mask[block]) == 0, connectivity=6)
    holes = KeptObjects(background, ~background.objects.touches_border)
    for step in steps:
        holes = KeptObjects(holes, step(holes.objects))
    filled = crop.scratch(f"{name} holes", np.dtype(np.uint8))
    for start, stop in slabs(crop.grid.shape[0]):
        box = holes.touched(start, stop)
        if box is not None:
            box = _whole_chunks(box, crop.grid.shape)
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
        self.words = CodewordVolume(self.book, codes, crop.grid.shape)
        one = decoder_for(self.book, crop.plan.routes, joint=joint)
        self.deciding = TileDecoder(self.words, crop.probability, one, crop.budget, joint)

    def run(self) -> None:
        self._decide()
        for entry in self.journal.noted("objects"):
            self.outcome.objects[entry["class"]] = entry["objects"]
        written = {entry["class"] for entry in self.journal.noted("objects") if entry["written"]}
        for entry in self.journal.noted("finished"):
            self._now_hold(entry["lost"], entry["words"])
        finished = {entry["class"] for entry in self.journal.noted("finished")}
        semantic_first = sorted(taxonomy.ancestors_first(self.book.classes), key=taxonomy.is_instance)
        for name in semantic_first:
            steps = self.crop.plan.routes[name].of_stage(Stage.LABEL, Stage.FILTER)
            if any(step.method.name != "binary" for step in steps) and name not in finished:
                written |= self._objects(name, steps)
        self._write_masks([name for name in self.book.classes if name not in written])

    # -- deciding

    def _decide(self) -> None:
        known = {entry["band"]: entry for entry in self.journal.noted("decided")}
        bands = self.deciding.bands()
        what = "decide" if self.joint else f"{self.book.classes[0]}: decide"
        for entry in known.values():
            self._take(bands[entry["band"]], entry)
        open_bands = [number for number in range(len(bands)) if number not in known]
        done = self.deciding.decide(open_bands)
        for entry in _progressing(self.crop, what, done, len(open_bands)):
            self.journal.note("decided", entry)
            self._take(bands[entry["band"]], entry)

    def _take(self, band: Slices, entry: Mapping[str, Any]) -> None:
        for block, words in zip(self.words.blocks_in(band), entry["words"], strict=True):
            self.words.now_hold(block, words)
        self.outcome.decoding.add(DecodingChanges.of(entry["changes"]))

    # -- objects

    def _objects(self, name: str, steps: Sequence[Step]) -> set[str]:
        """Find, filter and write a class's objects; the class's name if its array is written with that."""
        lost = [e for e in self.journal.noted("objects") if e["class"] == name]
        if not lost:
            labelled, boxes = self._labelled(name, steps)
            # labels are read off the mask as decided, so they are written before the mask loses anything
            write = any(s.method.stage is Stage.LABEL and s.method.name != "binary" for s in steps)
            if write:
                self._write_labels(name, labelled)
            blocks_lost = self._find_lost(name, labelled, boxes)
            lost = [{"class": name, "objects": len(labelled.objects), "written": write, "lost": blocks_lost}]
            self.journal.note("objects", lost[0])
            self.outcome.objects[name] = len(labelled.objects)
        words = self._lose(name, lost[0]["lost"])
        self._now_hold(lost[0]["lost"], words)
        self.journal.note("finished", {"class": name, "lost": lost[0]["lost"], "words": words})
        return {name} if lost[0]["written"] else set()

    def _labelled(self, name: str, steps: Iterable[Step]) -> tuple[LabelledObjects, list[np.ndarray]]:
        """The class's objects after its chain, and the boxes (n, 2, 3) of those its filters dropped."""
        crop = self.crop
        needs_p = any(step.method.traits.get("needs_probability") for step in steps)
        crop.progress(f"{name}: components", 0.0)
        labelled: LabelledObjects = Components(
            crop.grid,
            lambda block: self.words.mask(name, block),
            probability=(lambda block: crop.probability.of(name, block)) if needs_p else None,
            occupied=self.words.occupied(name),
            workers=crop.budget.slab_workers(crop.grid),
        )
        dropped = []
        for step in steps:
            if step.method.stage is Stage.FILTER:
                keep = step(labelled.objects)
                dropped.append(np.stack([labelled.objects.start[~keep], labelled.objects.stop[~keep]], axis=1))
                labelled = KeptObjects(labelled, keep)
            elif not step.trait("indivisible"):
                crop.progress(f"{name}: {step.method.name}", 0.0)
                labelled = Split(
                    labelled,
                    crop.grid,
                    step,
                    lambda block: self.words.mask(name, block),
                    crop.scratch("objects", np.dtype(np.uint32)),
                    self._seeds(name, step),
                    workers=crop.budget.workers,
                    say=lambda line: crop.say(f"crop {crop.plan.target.crop}, {name}: {line}"),
                    memory_bytes=crop.budget.split_bytes,
                )
        return labelled, dropped

    def _seeds(self, name: str, step: Step) -> Callable[[Slices], np.ndarray] | None:
        if step.method.traits.get("needs_ids"):
            return lambda block: self.crop.probability.ids(name, block)
        other = step.parameters.get("seeds_from")
        if other is None:
            return None
        threshold = self.crop.plan.routes[other].threshold
        return lambda block: self.crop.probability.of(other, block) > threshold

    def _find_lost(self, name: str, labelled: LabelledObjects, boxes: Sequence[np.ndarray]) -> list[list[list[int]]]:
        """Mark the voxels of dropped objects in the scratch array "lost"; the chunks that hold any."""
        touched = self.words.blocks_touching(np.concatenate([np.zeros((0, 2, 3), np.int64), *boxes]))
        if not touched:
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8))
        found = []
        for block in touched:
            gone = self.words.mask(name, block) & (labelled.read(block) == 0)
            if gone.any():
                marks[block] = gone.astype(np.uint8)
                found.append([[s.start, s.stop] for s in block])
        return found

    def _lose(self, name: str, lost: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
        """Decide the marked voxels of these chunks again; which words each holds then."""
        if not lost:
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8), keep=True)
        return self.deciding.again(name, [_block(bounds) for bounds in lost], marks)

    def _now_hold(self, lost: Sequence[Sequence[Sequence[int]]], words: Sequence[Sequence[int]]) -> None:
        for bounds, held in zip(lost, words, strict=True):
            self.words.now_hold(_block(bounds), held)

    # -- writing

    def _write_labels(self, name: str, labelled: LabelledObjects) -> None:
        dtype = np.min_scalar_type(len(labelled.objects))
        out = self.crop.create(name, dtype)
        bounds = slabs(self.crop.grid.shape[0], self.words.chunk[0])
        for start, stop in _progressing(self.crop, f"{name}: labels", bounds):
            box = labelled.touched(start, stop)
            if box is not None:
                box = _whole_chunks(box, self.crop.grid.shape)
                out[box] = labelled.read(box).astype(dtype)

    def _write_masks(self, names: Sequence[str]) -> None:
        begun = bool(self.journal.noted("masks begun"))
        outs = {name: self.crop.create(name, np.dtype(np.uint8), keep=begun) for name in names}
        if not begun:
            self.journal.note("masks begun", True)
        finished = set(self.journal.noted("masks"))
        open_blocks = [
            (number, block)
            for number, block in enumerate(self.words.blocks())
            if number not in finished and self.words.held(block).any()
        ]
        done = in_threads(self.crop.budget.workers, lambda item: self._write_block(outs, *item), open_blocks)
        for number in _progressing(self.crop, "masks", done, len(open_blocks)):
            self.journal.note("masks", number)

    def _write_block(self, outs: Mapping[str, ArrayLike], number: int, block: Slices) -> int:
        codes, held = np.asarray(self.words.codes[block]), self.words.held(block)
        for name, out in outs.items():
            mask = member(codes, held, self.book.holds(name))
            if mask is not None and mask.any():
                out[block] = mask.view(np.uint8)
        return number


def _block(bounds: Sequence[Sequence[int]]) -> Slices:
    """A block as a journal keeps it."""
    return tuple(slice(*s) for s in bounds)


def _whole_chunks(box: Slices, shape: Sequence[int]) -> Slices:
    """The box, grown to whole chunks."""
    return tuple(
        slice(s.start // c * c, min(-(-s.stop // c) * c, n)) for s, c, n in zip(box, CHUNK, shape, strict=True)
    )


def _progressing(crop: CropAssembly, what: str, items: Iterable, total: int | None = None) -> Iterable:
    total = len(items) if total is None else total
    for index, item in enumerate(items):
        crop.progress(what, index / max(total, 1))
        yield item
    crop.progress(what, 1.0)
