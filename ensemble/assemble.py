"""From stored probabilities to a crop's final arrays: mix, decide, filter, label; block by block.

A crop's whole segmentation is one volume of codeword numbers (see ``consistency``); classes that stand alone
are decided in codebooks of one class. Memory is a few blocks and slabs, and a row per object.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ensemble import taxonomy
from ensemble.components import Components, Kept, Labelled, Split
from ensemble.consistency import Codebook, Decoder, codebook
from ensemble.grid import Grid, Slices
from ensemble.merge import MIXES
from ensemble.methods import Stage, Step
from ensemble.plan import CropPlan
from ensemble.recipe import Empty, Expression, Mix, Named, OfClasses, Route
from ensemble.tiling import blocks, slabs


class Array(Protocol):
    """What is read and written block by block: a Zarr or NumPy array (z, y, x)."""

    def __getitem__(self, index: Any) -> Any: ...

    def __setitem__(self, index: Any, value: np.ndarray) -> None: ...


class Field(Protocol):
    """One class as one source has it; see ``sources``."""

    def probability(self, block: Grid, method: str) -> np.ndarray: ...

    def ids(self, block: Grid) -> np.ndarray | None: ...


Scratch = Callable[[str, np.dtype], Array]
"""Makes an array of zeros on the target's grid, by name and dtype; a name made before starts anew."""


@dataclass
class Decided:
    """How many voxels of one class were above its threshold, and what joint decoding took and gave."""

    alone: int = 0
    removed: int = 0
    added: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a crop: joint decoding's changes by class, and objects written by instance class."""

    decoding: dict[str, Decided] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)


class Probability:
    """The probability of every class of a crop on any block of its grid."""

    def __init__(self, crop: CropPlan, fields: Mapping[tuple[str, str], Field]) -> None:
        self._grid = crop.target.grid
        self._routes = crop.routes
        self._fields = fields
        self._filled: dict[str, Array] = {}

    def fill(self, name: str, holes: Array) -> None:
        """Raise the class where ``holes`` is nonzero, halfway from its threshold to 1."""
        self._filled[name] = holes

    def of(self, name: str, block: Slices) -> np.ndarray:
        """The class's mixed probability after its steps on probabilities, float32."""
        p = self.unfilled(name, block)
        if name in self._filled:
            threshold = self._routes[name].threshold
            holes = np.asarray(self._filled[name][block]) > 0
            p = np.where(holes, np.maximum(p, np.float32((1 + threshold) / 2)), p)
        return p

    def unfilled(self, name: str, block: Slices) -> np.ndarray:
        route = self._routes[name]
        steps = route.of_stage(Stage.PROBABILITY)
        reach_nm = sum(step.trait("reach_nm") for step in steps)
        halo = [int(np.ceil(reach_nm / v)) for v in self._grid.voxel_size_nm] if steps else [0, 0, 0]
        wide = self._grid.clip(tuple(slice(s.start - h, s.stop + h) for s, h in zip(block, halo, strict=True)))
        p = self._mixed(route.source, name, route, wide)
        for step in steps:
            p = step(p, self._grid.voxel_size_nm)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(block, wide, strict=True))
        return p[inner]

    def _mixed(self, source: Expression, name: str, route: Route, block: Slices) -> np.ndarray:
        if isinstance(source, Named):
            return self._fields[name, source.name].probability(self._grid.sub(block), route.resampling)
        if isinstance(source, Mix):
            parts = [self._mixed(part, name, route, block) for part, _ in source.parts]
            return MIXES[source.how](parts, [weight for _, weight in source.parts]).astype(np.float32)
        if isinstance(source, OfClasses):
            parts = [self.unfilled(member, block) for member in source.classes]
            return np.maximum.reduce(parts) if source.how == "union" else np.minimum.reduce(parts)
        return np.zeros(self._grid.sub(block).shape, np.float32)

    def ids(self, name: str, block: Slices) -> np.ndarray | None:
        """Object ids of a class whose source is a label volume."""
        source = self._routes[name].source
        return self._fields[name, source.name].ids(self._grid.sub(block)) if isinstance(source, Named) else None


@dataclass(frozen=True)
class Crop:
    """Everything needed to assemble one crop. ``create`` makes a class's final array of a dtype."""

    plan: CropPlan
    probability: Probability
    scratch: Scratch
    create: Callable[[str, np.dtype], Array]
    workers: int = 1
    progress: Callable[[str, float], None] = lambda what, share: None

    @property
    def grid(self) -> Grid:
        return self.plan.target.grid


def assemble(crop: Crop, *, joint: bool) -> Outcome:
    """Write every array of the crop; in joint mode all claimed classes are decided together."""
    outcome = Outcome()
    for name in crop.plan.unclaimed:
        crop.create(name, np.dtype(np.uint8))
    for name in crop.plan.routes:
        _fill_holes(crop, name)
    groups = [crop.plan.claimed] if joint else [(name,) for name in crop.plan.claimed]
    for group in groups:
        if group:
            _Group(crop, group, joint, outcome).run()
    return outcome


def _fill_holes(crop: Crop, name: str) -> None:
    """Find the holes of a class that its route fills, and have its probability raised there."""
    route = crop.plan.routes[name]
    steps = route.of_stage(Stage.FILL)
    if not steps or isinstance(route.source, Empty):
        return
    mask = crop.scratch(f"{name} mask", np.dtype(np.uint8))
    for block in _progressing(crop, f"{name}: holes", blocks(crop.grid.shape)):
        mask[block] = (crop.probability.unfilled(name, block) > route.threshold).astype(np.uint8)
    background = Components(crop.grid, lambda a, b: np.asarray(mask[a:b]) == 0, connectivity=6)
    holes = Kept(background, ~background.objects.touches_border)
    for step in steps:
        holes = Kept(holes, step(holes.objects))
    filled = crop.scratch(f"{name} holes", np.dtype(np.uint8))
    for start, stop in slabs(crop.grid.shape[0]):
        filled[start:stop] = (holes.slab(start, stop) > 0).astype(np.uint8)
    crop.probability.fill(name, filled)


class _Group:
    """Classes decided together: their codebook, and the volume of its codewords."""

    def __init__(self, crop: Crop, names: Sequence[str], joint: bool, outcome: Outcome) -> None:
        self.crop, self.joint, self.outcome = crop, joint, outcome
        self.book: Codebook = codebook(tuple(names))
        self.decoder = decoder(self.book, crop.plan.routes, joint=joint)
        self.codes = crop.scratch("codes", np.dtype(np.uint8))

    def run(self) -> None:
        self._decide()
        written = set()
        semantic_first = sorted(taxonomy.ancestors_first(self.book.classes), key=taxonomy.is_instance)
        for name in semantic_first:
            steps = self.crop.plan.routes[name].of_stage(Stage.LABEL, Stage.FILTER)
            if not any(step.method.name != "binary" for step in steps):
                continue
            labelled = self._objects(name, steps)
            self.outcome.objects[name] = len(labelled.objects)
            # labels are read off the mask as decided, so they are written before the mask loses anything
            if any(s.method.stage is Stage.LABEL and s.method.name != "binary" for s in steps):
                self._write_labels(name, labelled)
                written.add(name)
            self._lose(name, labelled)
        for name in self.book.classes:
            if name not in written:
                self._write_mask(name)

    def _decide(self) -> None:
        what = "decide" if self.joint else f"{self.book.classes[0]}: decide"
        counts = {name: Decided() for name in self.book.classes}

        def one(block: Slices) -> dict[str, Decided]:
            ps = [self.crop.probability.of(name, block) for name in self.book.classes]
            codes = self.decoder.decide(ps)
            self.codes[block] = codes
            return self._changes(ps, codes) if self.joint else {}

        with ThreadPoolExecutor(self.crop.workers) as pool:
            cut = blocks(self.crop.grid.shape)
            for changes in _progressing(self.crop, what, pool.map(one, cut), len(cut)):
                for name, change in changes.items():
                    counts[name].alone += change.alone
                    counts[name].removed += change.removed
                    counts[name].added += change.added
        if self.joint:
            self.outcome.decoding.update(counts)

    def _changes(self, ps: Sequence[np.ndarray], codes: np.ndarray) -> dict[str, Decided]:
        changes = {}
        for index, name in enumerate(self.book.classes):
            alone = ps[index] > self.decoder.thresholds[index]
            joint = self.book.table[:, index][codes]
            both = int(np.count_nonzero(alone & joint))
            n_alone, n_joint = int(np.count_nonzero(alone)), int(np.count_nonzero(joint))
            changes[name] = Decided(n_alone, n_alone - both, n_joint - both)
        return changes

    def _mask(self, name: str, block: Slices | slice) -> np.ndarray:
        return self.book.holds(name)[np.asarray(self.codes[block])]

    def _objects(self, name: str, steps: Iterable[Step]) -> Labelled:
        """The class's objects after its chain."""
        crop = self.crop
        needs_p = any(step.method.traits.get("needs_probability") for step in steps)
        everywhere = (slice(0, crop.grid.shape[1]), slice(0, crop.grid.shape[2]))
        labelled: Labelled = Components(
            crop.grid,
            lambda a, b: self._mask(name, slice(a, b)),
            probability=(lambda a, b: crop.probability.of(name, (slice(a, b), *everywhere))) if needs_p else None,
        )
        for step in steps:
            if step.method.stage is Stage.FILTER:
                labelled = Kept(labelled, step(labelled.objects))
            elif not step.trait("indivisible"):
                crop.progress(f"{name}: {step.method.name}", 0.0)
                scratch = crop.scratch("objects", np.dtype(np.uint32))
                read = lambda block: self._mask(name, block)  # noqa: E731
                labelled = Split(labelled, crop.grid, step, read, scratch, self._seeds(name, step))
        return labelled

    def _seeds(self, name: str, step: Step) -> Callable[[Slices], np.ndarray] | None:
        if step.method.traits.get("needs_ids"):
            return lambda block: self.crop.probability.ids(name, block)
        other = step.parameters.get("seeds_from")
        if other is None:
            return None
        threshold = self.crop.plan.routes[other].threshold
        return lambda block: self.crop.probability.of(other, block) > threshold

    def _lose(self, name: str, labelled: Labelled) -> None:
        """Give the voxels of dropped objects the best codeword without the class."""
        lost = self.crop.scratch("lost", np.dtype(np.uint8))
        touched = []
        for start, stop in slabs(self.crop.grid.shape[0]):
            gone = self._mask(name, slice(start, stop)) & (labelled.slab(start, stop) == 0)
            if gone.any():
                lost[start:stop] = gone.astype(np.uint8)
                touched.append((start, stop))
        for start, stop in touched:
            gone, codes = np.asarray(lost[start:stop]) > 0, np.array(self.codes[start:stop])
            for tile in blocks(gone.shape):
                self._redecide(name, start, tile, gone, codes)
            self.codes[start:stop] = codes

    def _redecide(self, name: str, start: int, tile: Slices, lost: np.ndarray, codes: np.ndarray) -> None:
        where = np.argwhere(lost[tile])
        if not len(where):
            return
        corner = np.array([s.start for s in tile])
        low, high = where.min(axis=0) + corner, where.max(axis=0) + corner + 1
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        in_crop = (slice(box[0].start + start, box[0].stop + start), *box[1:])
        here = lost[box]

        def probabilities() -> list[np.ndarray]:
            return [self.crop.probability.of(other, in_crop)[here] for other in self.book.classes]

        view = codes[box]
        view[here] = self.decoder.redecide(probabilities, view[here], name)

    def _write_mask(self, name: str) -> None:
        out = self.crop.create(name, np.dtype(np.uint8))
        for start, stop in slabs(self.crop.grid.shape[0]):
            mask = self._mask(name, slice(start, stop))
            if mask.any():
                out[start:stop] = mask.astype(np.uint8)

    def _write_labels(self, name: str, labelled: Labelled) -> None:
        dtype = np.min_scalar_type(len(labelled.objects))
        out = self.crop.create(name, dtype)
        for start, stop in slabs(self.crop.grid.shape[0]):
            labels = labelled.slab(start, stop)
            if labels.any():
                out[start:stop] = labels.astype(dtype)


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


def _progressing(crop: Crop, what: str, items: Iterable, total: int | None = None) -> Iterable:
    total = len(items) if total is None else total
    for index, item in enumerate(items):
        crop.progress(what, index / max(total, 1))
        yield item
    crop.progress(what, 1.0)
