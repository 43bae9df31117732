"""Deciding a crop's voxels tile by tile, and again those that lose a class to a filter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ensemble.core import (
    CHUNK,
    Bits,
    Box,
    BoxArray,
    ClassChange,
    Codebook,
    DecodingChanges,
    VoxelsZYX,
    blocks,
    count_violations,
    pack_bits,
    violating_voxels,
    zyx,
)
from ensemble.decode.codeword_volume import CodewordVolume, words_in
from ensemble.decode.decoder import Codes, Decoder, Values
from ensemble.decode.mixing import Probability
from ensemble.engine import tell
from ensemble.plan import BAND_BYTES, Route

TILE_SHAPE = (32, 64, 64)
"""What is decided at a time: small enough that most classes are surely absent from most tiles."""


@dataclass(frozen=True)
class DecidedBand:
    """A band that is decided: the words that each of its chunks holds, and what deciding changed.

    ``highest``: by "class source" the highest stored value, where it is only assumed what it stands for.
    """

    number: int
    words: list[list[int]]
    changes: DecodingChanges
    highest: dict[str, int]

    def as_plain(self) -> dict[str, Any]:
        """As a journal keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The band that ``as_plain`` made plain."""
        return cls(plain["number"], plain["words"], DecodingChanges.of(plain["changes"]), plain["highest"])


@dataclass(frozen=True)
class TileDecoder:
    """Probabilities in, codewords out. ``joint``: changes against each class alone are counted."""

    volume: CodewordVolume
    probability: Probability
    decoder: Decoder
    joint: bool

    def layout(self) -> list[Sequence[int]]:
        """What a journal's numbers of bands and chunks mean; where it differs they mean nothing."""
        return [CHUNK, TILE_SHAPE, *(band.start for band in self.bands())]

    def bands(self) -> list[Box]:
        """Parts of a slab, in whole chunks, whose sources are of moderate size; the same for every budget."""
        depth, rows, columns = self.volume.chunk
        shape = [depth, *self.volume.shape[1:]]
        classes = self.volume.book.classes
        while self.probability.bytes_over(classes, Box.of_shape(shape)) > BAND_BYTES:
            axis, step = (1, rows) if shape[1] > rows else (2, columns)
            if shape[axis] <= step:
                break
            shape[axis] = -(-shape[axis] // (2 * step)) * step
        return blocks(self.volume.shape, shape)

    def decide(self, number: int, band: Box) -> DecidedBand:
        """Decide a band, which has this number."""
        probability = self.probability.over(self.volume.book.classes, band)
        changes = DecodingChanges()
        words = []
        for block in self.volume.blocks_in(band):
            codes = np.zeros(block.shape, np.uint8)
            for tile in block.tiles(TILE_SHAPE):
                codes[tile.relative_to(block).slices] = self._tile(probability, tile, changes)
            tell(None)  # who is given up writes no more
            if codes.any():
                self.volume.write(block, codes)
            words.append(words_in(codes))
        return DecidedBand(number, words, changes, probability.highest())

    def _tile(self, probability: Probability, tile: Box, changes: DecodingChanges) -> Codes:
        names = self.volume.book.classes
        low, high = np.array([probability.bounds(name, tile) for name in names]).T
        words = self.decoder.survivors(low, high)
        ps = {index: probability.of(names[index], tile) for index in self.decoder.needed(words)}
        codes = self.decoder.decide(ps, words) if ps else np.full(tile.shape, words[0], np.uint8)
        if self.joint:
            changes.add(self._changes(probability, tile, high, ps, codes))
        return codes

    def _changes(
        self,
        probability: Probability,
        tile: Box,
        high: NDArray[np.float64],
        ps: Mapping[int, Values],
        codes: Codes,
    ) -> DecodingChanges:
        """What a decided tile has that its classes alone would not have; ``high`` bounds their probabilities."""
        book, changes = self.volume.book, DecodingChanges()
        words = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=len(book.words)))
        bits_of_word = {word: pack_bits(codes == word) for word in words if book.words[word]}
        planes: list[Bits | None] = []
        for index, name in enumerate(book.classes):
            joint = [bits for word, bits in bits_of_word.items() if book.table[word, index]]
            alone = None
            if high[index] > self.decoder.thresholds[index]:
                p = ps[index] if index in ps else probability.of(name, tile)
                bits = pack_bits(p > self.decoder.thresholds[index])
                alone = bits if bits.any() else None
            planes.append(alone)
            change = _change(alone, reduce(np.bitwise_or, joint) if joint else None, tile)
            if change.alone or change.added:
                changes.by_class[name] = change
        changed = any(change.most_voxels for change in changes.by_class.values())
        if changed and any(plane is not None for plane in planes):  # where nothing changed all are codewords
            changes.before = count_violations(book, planes, violating_voxels(book, planes))
        return changes

    def again(self, name: str, blocks_lost: Sequence[Box], marks: BoxArray) -> list[list[int]]:
        """Give the voxels marked in these chunks the best codeword without the class; those without it stay.

        Returns which words each of the chunks holds then.
        """

        words: dict[int, list[int]] = {}
        for band in self.bands():
            on_band: dict[int, Probability] = {}
            for number, block in enumerate(blocks_lost):
                if block.within(band):
                    words[number] = self._block_again(name, block, marks, band, on_band)
        return [words[number] for number in range(len(blocks_lost))]

    def _block_again(
        self, name: str, block: Box, marks: BoxArray, band: Box, on_band: dict[int, Probability]
    ) -> list[int]:
        gone, codes = np.asarray(marks[block]) > 0, np.array(self.volume.codes(block))
        for tile in Box.of_shape(codes.shape).tiles(TILE_SHAPE):
            where = np.argwhere(gone[tile.slices])
            if not len(where):
                continue
            box = Box(zyx(where.min(axis=0)), zyx(where.max(axis=0) + 1)).shifted(tile.start)
            here = gone[box.slices]
            view = codes[box.slices]
            read = self._reader(on_band, band, box.shifted(block.start), here)
            view[here] = self.decoder.redecide(read, view[here], name)
        tell(None)
        self.volume.write(block, codes, lost=name)
        return words_in(codes)

    def _reader(
        self, on_band: dict[int, Probability], band: Box, box: Box, here: NDArray[np.bool_]
    ) -> Callable[[int], Values]:
        """Probabilities of a class at some voxels of a box; what its sources have on the band is read once."""

        def read(index: int) -> Values:
            name = self.volume.book.classes[index]
            if index not in on_band:
                on_band[index] = self.probability.over((name,), band)
            return on_band[index].of(name, box)[here]

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


def _change(alone: Bits | None, joint: Bits | None, tile: Box) -> ClassChange:
    """A class's voxels alone and decided jointly, as bits (None: none)."""
    before, after = (0 if bits is None else int(np.bitwise_count(bits).sum()) for bits in (alone, joint))
    both = 0 if alone is None or joint is None else int(np.bitwise_count(alone & joint).sum())
    removed, added = before - both, after - both
    most_at: VoxelsZYX = tile.start if removed or added else (0, 0, 0)
    return ClassChange(before, removed, added, removed + added, most_at)
