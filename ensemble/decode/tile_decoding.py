"""Deciding a crop's voxels tile by tile, and again those that lose a class to a filter."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.codebook import Codebook
from ensemble.core.contradictions import ClassChange, DecodingChanges, count_violations, pack_bits, violating_voxels
from ensemble.core.tiling import blocks
from ensemble.decode.codeword_volume import ArrayLike, CodewordVolume, values
from ensemble.decode.decoder import Decoder
from ensemble.decode.mixing import Probability
from ensemble.plan.budget import BAND_BYTES, Budget
from ensemble.plan.recipe import Route
from ensemble.support.machine import in_threads

TILE_SHAPE = (32, 64, 64)
"""What is decided at a time: small enough that most classes are surely absent from most tiles."""


@dataclass(frozen=True)
class TileDecoder:
    """Probabilities in, codewords out. ``joint``: changes against each class alone are counted."""

    words: CodewordVolume
    probability: Probability
    decoder_for: Decoder
    budget: Budget
    joint: bool

    def bands(self) -> list[Slices]:
        """Parts of a slab, in whole chunks, whose sources are of moderate size; the same for every budget."""
        depth, rows, columns = self.words.chunk
        shape = [depth, *self.words.shape[1:]]
        classes = self.words.book.classes
        while self.probability.bytes_over(classes, tuple(slice(0, n) for n in shape)) > BAND_BYTES:
            axis, step = (1, rows) if shape[1] > rows else (2, columns)
            if shape[axis] <= step:
                break
            shape[axis] = -(-shape[axis] // (2 * step)) * step
        return blocks(self.words.shape, shape)

    def decide(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Decide bands by number; yields of each its number, its chunks' words, and its changes (plain)."""
        bands = self.bands()
        return in_threads(self.budget.deciding_workers, lambda number: self._band(number, bands[number]), numbers)

    def _band(self, number: int, band: Slices) -> dict[str, Any]:
        probability = self.probability.over(self.words.book.classes, band)
        changes = DecodingChanges()
        found = []
        for block in self.words.blocks_in(band):
            codes = np.zeros([s.stop - s.start for s in block], np.uint8)
            for tile in blocks(codes.shape, TILE_SHAPE):
                place = tuple(slice(b.start + t.start, b.start + t.stop) for b, t in zip(block, tile, strict=True))
                codes[tile] = self._tile(probability, place, changes)
            if codes.any():
                self.words.codes[block] = codes
            found.append(values(codes))
        return {"band": number, "words": found, "changes": asdict(changes)}

    def _tile(self, probability: Probability, tile: Slices, changes: DecodingChanges) -> np.ndarray:
        names = self.words.book.classes
        low, high = np.array([probability.bounds(name, tile) for name in names]).T
        words = self.decoder.survivors(low, high)
        ps = {index: probability.of(names[index], tile) for index in self.decoder.needed(words)}
        shape = tuple(s.stop - s.start for s in tile)
        codes = self.decoder.decide(ps, words) if ps else np.full(shape, words[0], np.uint8)
        if self.joint:
            changes.add(self._changes(probability, tile, high, ps, codes))
        return codes

    def _changes(
        self,
        probability: Probability,
        tile: Slices,
        high: np.ndarray,
        ps: Mapping[int, np.ndarray],
        codes: np.ndarray,
    ) -> DecodingChanges:
        """What a decided tile has that its classes alone would not have; ``high`` bounds their probabilities."""
        book, found = self.words.book, DecodingChanges()
        words = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=len(book.words)))
        held = {word: pack_bits(codes == word) for word in words if book.words[word]}
        planes: list[np.ndarray | None] = []
        for index, name in enumerate(book.classes):
            joint = [bits for word, bits in held.items() if book.table[word, index]]
            alone = None
            if high[index] > self.decoder.thresholds[index]:
                p = ps[index] if index in ps else probability.of(name, tile)
                bits = pack_bits(p > self.decoder.thresholds[index])
                alone = bits if bits.any() else None
            planes.append(alone)
            changed = _changed(alone, reduce(np.bitwise_or, joint) if joint else None, tile)
            if changed.alone or changed.added:
                found.by_class[name] = changed
        if any(one.most_voxels for one in found.by_class.values()) and any(plane is not None for plane in planes):
            found.before = count_violations(
                book, planes, violating_voxels(book, planes)
            )  # where nothing changed all are codewords
        return found

    def again(self, name: str, lost: Sequence[Slices], marks: ArrayLike) -> list[list[int]]:
        """Give the voxels marked in these chunks the best codeword without the class; those without it stay.

        Returns which words each of the chunks holds then.
        """

        def one(band: Slices) -> list[list[int]]:
            held: dict[int, Probability] = {}
            return [self._block_again(name, block, marks, band, held) for block in lost if _within(block, band)]

        bands = [band for band in self.bands() if any(_within(block, band) for block in lost)]
        found: dict[int, list[int]] = {}
        for band, words in zip(bands, in_threads(self.budget.deciding_workers, one, bands), strict=True):
            here = (number for number, block in enumerate(lost) if _within(block, band))
            found.update(zip(here, words, strict=True))
        return [found[number] for number in range(len(lost))]

    def _block_again(
        self, name: str, block: Slices, marks: ArrayLike, band: Slices, held: dict[int, Probability]
    ) -> list[int]:
        gone, codes = np.asarray(marks[block]) > 0, np.array(self.words.codes[block])
        for tile in blocks(codes.shape, TILE_SHAPE):
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
        self.words.codes[block] = codes
        return values(codes)

    def _reader(
        self, held: dict[int, Probability], band: Slices, box: Slices, here: np.ndarray
    ) -> Callable[[int], np.ndarray]:
        """Probabilities of a class at some voxels of a box; what its sources have on the band is read once."""

        def read(index: int) -> np.ndarray:
            name = self.words.book.classes[index]
            if index not in held:
                held[index] = self.probability.over((name,), band)
            return held[index].of(name, box)[here]

        return read


def decoder_for(book: Codebook, routes: Mapping[str, Route], *, joint: bool) -> Decoder:
    """How the routes weigh the classes of a codebook; a class alone is simply p > t."""
    hard = [name for name in routes if name in book.classes and (routes[name].weight == "hard" or not joint)]
    weights = [routes[name].weight for name in book.classes]
    return Decoder(
        book,
        thresholds=tuple(routes[name].threshold for name in book.classes),
        weights=tuple(0.0 if weight == "hard" else float(weight) for weight in weights),
        hard=tuple(book.classes.index(name) for name in hard),
    )


def _changed(alone: np.ndarray | None, joint: np.ndarray | None, tile: Slices) -> ClassChange:
    """A class's voxels alone and decided jointly, as bits (None: none)."""
    before, after = (0 if bits is None else int(np.bitwise_count(bits).sum()) for bits in (alone, joint))
    both = 0 if alone is None or joint is None else int(np.bitwise_count(alone & joint).sum())
    removed, added = before - both, after - both
    most = tuple(s.start for s in tile) if removed or added else (0, 0, 0)
    return ClassChange(before, removed, added, removed + added, most)


def _within(block: Slices, band: Slices) -> bool:
    return all(b.start <= s.start and s.stop <= b.stop for s, b in zip(block, band, strict=True))
