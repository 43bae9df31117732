"""From stored probabilities to a crop's final arrays: mix, decide, filter, label; block by block.

A crop's whole segmentation is one volume of codeword numbers (see ``consistency``); classes that stand alone
are decided in codebooks of one class. Memory is a few blocks and slabs, and a row per object. Everything that
is finished is written in a ``Journal``, so that a crop begun before goes on where it was.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ensemble import taxonomy
from ensemble.budget import BAND_BYTES, Budget
from ensemble.components import Components, Kept, Labelled
from ensemble.consistency import Codebook, Decoder, codebook
from ensemble.grid import Grid, Slices
from ensemble.methods import Stage, Step
from ensemble.mixing import Probability
from ensemble.plan import CropPlan
from ensemble.recipe import Empty, Route
from ensemble.split import Split
from ensemble.tiling import CHUNK, blocks, chunk_shape, slabs

_TILE = (32, 64, 64)
"""What is decided at a time: small enough that most classes are surely absent from most tiles."""


class Array(Protocol):
    """What is read and written block by block: a Zarr or NumPy array (z, y, x)."""

    def __getitem__(self, index: Any) -> Any: ...

    def __setitem__(self, index: Any, value: np.ndarray) -> None: ...


class Journal(Protocol):
    """What of a group was finished before, and where to note what is finished now."""

    def noted(self, what: str) -> list[Any]:
        """Everything noted under this word, in order."""
        ...

    def note(self, what: str, value: Any) -> None: ...


class Forgetful:
    """A journal for work that is not resumed."""

    def noted(self, what: str) -> list[Any]:
        return []

    def note(self, what: str, value: Any) -> None:
        pass


@dataclass
class Decided:
    """How many voxels of one class were above its threshold, and what joint decoding took and gave."""

    alone: int = 0
    removed: int = 0
    added: int = 0

    def add(self, alone: int, removed: int, added: int) -> None:
        self.alone, self.removed, self.added = self.alone + alone, self.removed + removed, self.added + added


@dataclass(frozen=True)
class Outcome:
    """What became of a group: joint decoding's changes by class, and objects written by instance class."""

    decoding: dict[str, Decided] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Crop:
    """Everything needed to assemble one crop.

    ``scratch`` and ``create`` give an array of zeros on the target's grid by name and dtype, or with ``keep`` the
    array of that name as it was left: one to work in, and a class's final one.
    """

    plan: CropPlan
    probability: Probability
    scratch: Callable[..., Array]
    create: Callable[..., Array]
    budget: Budget = field(default_factory=Budget)
    progress: Callable[[str, float], None] = lambda what, share: None
    say: Callable[[str], None] = lambda line: None

    @property
    def grid(self) -> Grid:
        return self.plan.target.grid


def groups(plan: CropPlan, *, joint: bool) -> list[tuple[str, ...]]:
    """The classes of a crop that are decided together: all claimed ones, or each alone; each empty one alone."""
    claimed = [plan.claimed] if joint and plan.claimed else [(name,) for name in plan.claimed]
    return [*claimed, *((name,) for name in plan.unclaimed)]


def assemble(crop: Crop, group: Sequence[str], *, joint: bool, journal: Journal | None = None) -> Outcome:
    """Write the arrays of one group of classes (see ``groups``)."""
    outcome = Outcome()
    if all(isinstance(crop.plan.routes[name].source, Empty) for name in group):
        for name in group:
            crop.create(name, np.dtype(np.uint8))
        return outcome
    for name in [*group, *_seeding(crop.plan.routes, group)]:
        _fill_holes(crop, name)
    _Group(crop, group, joint, journal or Forgetful(), outcome).run()
    return outcome


def _seeding(routes: Mapping[str, Route], group: Sequence[str]) -> list[str]:
    """Classes outside the group that seeds are taken from."""
    seeds = (step.parameters.get("seeds_from") for name in group for step in routes[name].steps)
    return list(dict.fromkeys(name for name in seeds if name is not None and name not in group))


def _fill_holes(crop: Crop, name: str) -> None:
    """Find the holes of a class that its route fills, and have its probability raised there."""
    route = crop.plan.routes[name]
    steps = route.of_stage(Stage.FILL)
    if not steps or isinstance(route.source, Empty):
        return
    mask = crop.scratch(f"{name} mask", np.dtype(np.uint8))
    for block in _progressing(crop, f"{name}: holes", blocks(crop.grid.shape)):
        mask[block] = (crop.probability.unfilled(name, block) > route.threshold).astype(np.uint8)
    background = Components(crop.grid, lambda block: np.asarray(mask[block]) == 0, connectivity=6)
    holes = Kept(background, ~background.objects.touches_border)
    for step in steps:
        holes = Kept(holes, step(holes.objects))
    filled = crop.scratch(f"{name} holes", np.dtype(np.uint8))
    for start, stop in slabs(crop.grid.shape[0]):
        box = holes.touched(start, stop)
        if box is not None:
            box = _whole_chunks(box, crop.grid.shape)
            filled[box] = (holes.read(box) > 0).astype(np.uint8)
    crop.probability.fill(name, filled)


class _Group:
    """Classes decided together: their codebook, and the volume of its codewords.

    ``_present``: which words each chunk of that volume may hold, bool (chunks z, y, x, words).
    """

    def __init__(self, crop: Crop, names: Sequence[str], joint: bool, journal: Journal, outcome: Outcome) -> None:
        self.crop, self.joint, self.journal, self.outcome = crop, joint, journal, outcome
        self.book: Codebook = codebook(tuple(names))
        self.decoder = decoder(self.book, crop.plan.routes, joint=joint)
        self.codes = crop.scratch("codes", np.dtype(np.uint8), keep=bool(journal.noted("decided")))
        self._chunk = chunk_shape(crop.grid.shape)
        counts = [-(-n // c) for n, c in zip(crop.grid.shape, self._chunk, strict=True)]
        self._present = np.zeros((*counts, len(self.book.words)), bool)

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
        bands = self._bands()
        what = "decide" if self.joint else f"{self.book.classes[0]}: decide"
        counts = {name: Decided() for name in self.book.classes}
        open_bands = [index for index in range(len(bands)) if index not in known]
        for entry in known.values():
            self._take(bands[entry["band"]], entry, counts)
        done = _in_threads(
            self.crop.budget.deciding_workers, lambda index: self._decide_band(index, bands[index]), open_bands
        )
        for entry in _progressing(self.crop, what, done, len(open_bands)):
            self.journal.note("decided", entry)
            self._take(bands[entry["band"]], entry, counts)
        if self.joint:
            self.outcome.decoding.update(counts)

    def _take(self, band: Slices, entry: Mapping[str, Any], counts: dict[str, Decided]) -> None:
        for block, words in zip(self._blocks_in(band), entry["words"], strict=True):
            self._present[self._chunk_of(block)][words] = True
        for name, changes in entry["changes"].items():
            counts[name].add(*changes)

    def _bands(self) -> list[Slices]:
        """Parts of a slab, in whole chunks, whose sources are of moderate size."""
        _, height, width = self.crop.grid.shape
        _, rows, columns = self._chunk
        shape = [self._chunk[0], height, width]
        while self.crop.probability.bytes_over(self.book.classes, tuple(slice(0, n) for n in shape)) > BAND_BYTES:
            axis, step = (1, rows) if shape[1] > rows else (2, columns)
            if shape[axis] <= step:
                break
            shape[axis] = -(-shape[axis] // (2 * step)) * step
        return blocks(self.crop.grid.shape, shape)

    def _blocks_in(self, band: Slices) -> list[Slices]:
        size = [s.stop - s.start for s in band]
        return [
            tuple(slice(s.start + b.start, s.start + b.stop) for s, b in zip(band, block, strict=True))
            for block in blocks(size, self._chunk)
        ]

    def _chunk_of(self, block: Slices) -> tuple[int, ...]:
        return tuple(s.start // c for s, c in zip(block, self._chunk, strict=True))

    def _decide_band(self, number: int, band: Slices) -> dict[str, Any]:
        probability = self.crop.probability.over(self.book.classes, band)
        changes = np.zeros((len(self.book.classes), 3), np.int64)
        words = []
        for block in self._blocks_in(band):
            codes = np.zeros([s.stop - s.start for s in block], np.uint8)
            for tile in blocks(codes.shape, _TILE):
                place = tuple(slice(b.start + t.start, b.start + t.stop) for b, t in zip(block, tile, strict=True))
                codes[tile] = self._decide_tile(probability, place, changes)
            if codes.any():
                self.codes[block] = codes
            words.append(_values(codes))
        named = {name: row.tolist() for name, row in zip(self.book.classes, changes, strict=True) if row.any()}
        return {"band": number, "words": words, "changes": named}

    def _decide_tile(self, probability: Probability, tile: Slices, changes: np.ndarray) -> np.ndarray:
        names = self.book.classes
        low, high = np.array([probability.bounds(name, tile) for name in names]).T
        words = self.decoder.survivors(low, high)
        ps = {index: probability.of(names[index], tile) for index in self.decoder.needed(words)}
        shape = tuple(s.stop - s.start for s in tile)
        codes = self.decoder.decide(ps, words) if ps else np.full(shape, words[0], np.uint8)
        if self.joint:
            self._count_changes(probability, tile, (low, high), ps, codes, changes)
        return codes

    def _count_changes(
        self,
        probability: Probability,
        tile: Slices,
        bounds: tuple[np.ndarray, np.ndarray],
        ps: Mapping[int, np.ndarray],
        codes: np.ndarray,
        changes: np.ndarray,
    ) -> None:
        words = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=len(self.book.words)))
        for index, name in enumerate(self.book.classes):
            threshold = self.decoder.thresholds[index]
            joint = _member(codes, words, self.book.holds(name))
            if bounds[1][index] <= threshold:
                changes[index] += 0, 0, 0 if joint is None else np.count_nonzero(joint)
                continue
            p = ps[index] if index in ps else probability.of(name, tile)
            alone = p > threshold
            both = 0 if joint is None else np.count_nonzero(alone & joint)
            total = np.count_nonzero(alone)
            changes[index] += total, total - both, (0 if joint is None else np.count_nonzero(joint)) - both

    # -- objects

    def _mask(self, name: str, block: Slices) -> np.ndarray:
        codes = np.asarray(self.codes[block])
        words = np.flatnonzero(self._present[self._chunks_under(block)].any(axis=(0, 1, 2)))
        mask = _member(codes, words, self.book.holds(name))
        return np.zeros(codes.shape, bool) if mask is None else mask

    def _chunks_under(self, block: Slices) -> Slices:
        return tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(block, self._chunk, strict=True))

    def _occupied(self, name: str) -> np.ndarray:
        """The chunks that may hold the class: bool."""
        return self._present[..., self.book.holds(name)].any(axis=-1)

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
        words = self._lose(name, [tuple(slice(*s) for s in block) for block in lost[0]["lost"]])
        self._now_hold(lost[0]["lost"], words)
        self.journal.note("finished", {"class": name, "lost": lost[0]["lost"], "words": words})
        return {name} if lost[0]["written"] else set()

    def _labelled(self, name: str, steps: Iterable[Step]) -> tuple[Labelled, list[np.ndarray]]:
        """The class's objects after its chain, and the boxes (n, 2, 3) of those its filters dropped."""
        crop = self.crop
        needs_p = any(step.method.traits.get("needs_probability") for step in steps)
        crop.progress(f"{name}: components", 0.0)
        labelled: Labelled = Components(
            crop.grid,
            lambda block: self._mask(name, block),
            probability=(lambda block: crop.probability.of(name, block)) if needs_p else None,
            occupied=self._occupied(name),
            workers=crop.budget.slab_workers(crop.grid),
        )
        dropped = []
        for step in steps:
            if step.method.stage is Stage.FILTER:
                keep = step(labelled.objects)
                dropped.append(np.stack([labelled.objects.start[~keep], labelled.objects.stop[~keep]], axis=1))
                labelled = Kept(labelled, keep)
            elif not step.trait("indivisible"):
                crop.progress(f"{name}: {step.method.name}", 0.0)
                labelled = Split(
                    labelled,
                    crop.grid,
                    step,
                    lambda block: self._mask(name, block),
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

    def _find_lost(self, name: str, labelled: Labelled, boxes: Sequence[np.ndarray]) -> list[list[list[int]]]:
        """Mark the voxels of dropped objects in the scratch array "lost"; the chunks that hold any."""
        touched = np.zeros(self._present.shape[:3], bool)
        for start, stop in np.concatenate([np.zeros((0, 2, 3), np.int64), *boxes]):
            touched[tuple(slice(a // c, -(-b // c)) for a, b, c in zip(start, stop, self._chunk, strict=True))] = True
        if not touched.any():
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8))
        found = []
        for block in blocks(self.crop.grid.shape, self._chunk):
            if touched[self._chunk_of(block)]:
                gone = self._mask(name, block) & (labelled.read(block) == 0)
                if gone.any():
                    marks[block] = gone.astype(np.uint8)
                    found.append([[s.start, s.stop] for s in block])
        return found

    def _now_hold(self, lost: Sequence[Sequence[Sequence[int]]], words: Sequence[Sequence[int]]) -> None:
        for block, held in zip(lost, words, strict=True):
            chunk = tuple(start // c for (start, _), c in zip(block, self._chunk, strict=True))
            self._present[chunk] = np.isin(np.arange(len(self.book.words)), held)

    def _lose(self, name: str, lost: Sequence[Slices]) -> list[list[int]]:
        """Give the marked voxels the best codeword without the class; those that have one keep it.

        Returns which words each of the blocks holds then.
        """
        if not lost:
            return []
        marks = self.crop.scratch("lost", np.dtype(np.uint8), keep=True)

        def one(band: Slices) -> list[list[int]]:
            held: dict[int, Probability] = {}
            return [self._redecide(name, block, marks, band, held) for block in lost if _within(block, band)]

        found: dict[tuple[int, ...], list[int]] = {}
        bands = [band for band in self._bands() if any(_within(block, band) for block in lost)]
        for band, words in zip(bands, _in_threads(self.crop.budget.deciding_workers, one, bands), strict=True):
            found.update(zip((self._chunk_of(b) for b in lost if _within(b, band)), words, strict=True))
        return [found[self._chunk_of(block)] for block in lost]

    def _redecide(
        self, name: str, block: Slices, marks: Array, band: Slices, held: dict[int, Probability]
    ) -> list[int]:
        gone, codes = np.asarray(marks[block]) > 0, np.array(self.codes[block])
        for tile in blocks(codes.shape, _TILE):
            where = np.argwhere(gone[tile])
            if not len(where):
                continue
            corner = np.array([s.start for s in tile])
            low, high = where.min(axis=0) + corner, where.max(axis=0) + corner + 1
            box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            in_crop = tuple(slice(s.start + b.start, b.stop + s.start) for s, b in zip(block, box, strict=True))
            here = gone[box]
            view = codes[box]
            view[here] = self.decoder.redecide(self._reader(held, band, in_crop, here), view[here], name)
        self.codes[block] = codes
        return _values(codes)

    def _reader(
        self, held: dict[int, Probability], band: Slices, box: Slices, here: np.ndarray
    ) -> Callable[[int], np.ndarray]:
        """Probabilities of a class at some voxels of a box; what its sources have on the band is read once."""

        def read(index: int) -> np.ndarray:
            name = self.book.classes[index]
            if index not in held:
                held[index] = self.crop.probability.over((name,), band)
            return held[index].of(name, box)[here]

        return read

    # -- writing

    def _write_labels(self, name: str, labelled: Labelled) -> None:
        dtype = np.min_scalar_type(len(labelled.objects))
        out = self.crop.create(name, dtype)
        bounds = slabs(self.crop.grid.shape[0], self._chunk[0])
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
            for number, block in enumerate(blocks(self.crop.grid.shape, self._chunk))
            if number not in finished and self._present[self._chunk_of(block)][1:].any()
        ]
        done = _in_threads(self.crop.budget.workers, lambda item: self._write_block(outs, *item), open_blocks)
        for number in _progressing(self.crop, "masks", done, len(open_blocks)):
            self.journal.note("masks", number)

    def _write_block(self, outs: Mapping[str, Array], number: int, block: Slices) -> int:
        codes = np.asarray(self.codes[block])
        words = np.flatnonzero(self._present[self._chunk_of(block)])
        for name, out in outs.items():
            mask = _member(codes, words, self.book.holds(name))
            if mask is not None and mask.any():
                out[block] = mask.view(np.uint8)
        return number


def decoder(book: Codebook, routes: Mapping[str, Route], *, joint: bool) -> Decoder:
    """How the routes weigh the classes of a codebook; a class alone is simply p > t."""
    hard = [name for name in routes if name in book.classes and (routes[name].weight == "hard" or not joint)]
    weights = [routes[name].weight for name in book.classes]
    return Decoder(
        book,
        thresholds=tuple(routes[name].threshold for name in book.classes),
        weights=tuple(0.0 if weight == "hard" else float(weight) for weight in weights),
        hard=tuple(book.classes.index(name) for name in hard),
    )


def _within(block: Slices, band: Slices) -> bool:
    return all(b.start <= s.start and s.stop <= b.stop for s, b in zip(block, band, strict=True))


def _values(codes: np.ndarray) -> list[int]:
    return np.flatnonzero(np.bincount(codes.reshape(-1))).tolist()


def _member(codes: np.ndarray, words: np.ndarray, holds: np.ndarray) -> np.ndarray | None:
    """Where the code is one of those ``words`` that hold a class: bool, or None for nowhere.

    ``words`` are all that ``codes`` may hold; comparing with each is quicker than a look-up.
    """
    inside, outside = words[holds[words]], words[~holds[words]]
    if not len(inside):
        return None
    fewer = inside if len(inside) <= len(outside) else outside
    found = np.zeros(codes.shape, bool)
    for word in fewer:
        found |= codes == word
    return found if fewer is inside else ~found


def _whole_chunks(box: Slices, shape: Sequence[int]) -> Slices:
    """The box, grown to whole chunks."""
    return tuple(
        slice(s.start // c * c, min(-(-s.stop // c) * c, n)) for s, c, n in zip(box, CHUNK, shape, strict=True)
    )


def _in_threads(workers: int, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results in the order of the items; at most two items a worker are under way."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _progressing(crop: Crop, what: str, items: Iterable, total: int | None = None) -> Iterable:
    total = len(items) if total is None else total
    for index, item in enumerate(items):
        crop.progress(what, index / max(total, 1))
        yield item
    crop.progress(what, 1.0)
