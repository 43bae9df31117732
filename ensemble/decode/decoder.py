"""Evidence for classes, and the codeword of each voxel that has the most of it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Codebook, ancestors_first

FINEST_UNIT = 2.0**-12
"""Evidence is counted in whole units, so that sums are exact and ties are ties whatever the order."""

_CERTAIN = 1 / 510
"""Stored probabilities cannot tell anything nearer to 0 or 1 than this."""

_WORD_BITS = 8

_CHUNK = 1 << 16

_ROUNDING = 1e-6
"""What float32 arithmetic may be off by, relatively, with room to spare."""


Values = NDArray[np.float32]
Units = NDArray[np.int32]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Decoder:
    """How to weigh the classes of a codebook against each other.

    ``thresholds`` and ``weights`` follow ``book.classes``; ``hard`` lists classes (by index) that the
    codeword must hold exactly where p > t, the first winning where they conflict.
    """

    book: Codebook
    thresholds: tuple[float, ...]
    weights: tuple[float, ...]
    hard: tuple[int, ...] = ()

    @cached_property
    def unit(self) -> float:
        """Size of one unit of evidence; coarser than FINEST_UNIT only under very large weights."""
        most = max(
            (sum(self.weights[i] * self._widest(i) for i in range(len(row)) if row[i]) for row in self.book.table),
            default=0.0,
        )
        room = 2.0 ** (30 - _WORD_BITS)
        return max(FINEST_UNIT, 2.0 ** math.ceil(math.log2(max(most, 1e-9) / room)))

    def _widest(self, index: int) -> float:
        low, high = _clip_bounds(self.thresholds[index])
        offset = _logit(self.thresholds[index])
        return max(abs(_logit(low) - offset), abs(_logit(high) - offset)) + 1

    def evidence(self, index: int, probability: Values) -> Units:
        """w (logit p - logit t) of one class in whole units, int32; positive exactly where p > t and w > 0.

        Probabilities are taken no nearer to 0 and 1 than 1/510.
        """
        threshold, weight = self.thresholds[index], self.weights[index]
        if weight == 0:
            return np.zeros(probability.shape, np.int32)
        p = np.clip(probability, *_clip_bounds(threshold), dtype=np.float32)
        e = np.subtract(np.float32(1), p)
        np.divide(p, e, out=e)
        np.log(e, out=e)
        e -= np.float32(_logit(threshold))
        e *= np.float32(weight / self.unit)
        units: Units = np.rint(e, out=e).astype(np.int32)
        above = probability > threshold
        flat = units.reshape(-1)
        wrong = np.flatnonzero((flat > 0) != above.reshape(-1))  # few, and cheaper to mend than to choose everywhere
        flat[wrong] = above.reshape(-1)[wrong]
        return units

    def survivors(
        self, low: Sequence[float] | NDArray[np.float64], high: Sequence[float] | NDArray[np.float64]
    ) -> tuple[int, ...]:
        """The words that can win a voxel whose probabilities lie within bounds; never none.

        ``low`` and ``high`` follow ``book.classes`` and must hold for float32 arithmetic too.
        """
        words = tuple(range(len(self.book.words)))
        if self.hard:
            if not all(high[i] <= self.thresholds[i] or low[i] > self.thresholds[i] for i in self.hard):
                return words
            words = self._obeying([low[i] > self.thresholds[i] for i in self.hard], words)
        least, most = self._units(np.asarray(low, np.float64)), self._units(np.asarray(high, np.float64))
        least, most = least - _ROUNDING * np.abs(least) - 2, most + _ROUNDING * np.abs(most) + 2
        free = np.array([self.weights[i] > 0 and i not in self.hard for i in range(len(self.book.classes))], bool)
        least, most = np.where(free, least, 0), np.where(free, most, 0)
        table = self.book.table[list(words)].astype(np.float64)
        # the most by which one word (rows) can lead another (columns): what both hold cancels
        lead = (table @ most)[:, None] - (table @ least)[None] - (table * (most - least)) @ table.T
        np.fill_diagonal(lead, 0)
        return tuple(word for word, leads in zip(words, lead, strict=True) if leads.min() >= 0)

    def _units(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evidence of every class at one probability each, in units, not rounded."""
        low, high = np.array([_clip_bounds(t) for t in self.thresholds]).reshape(-1, 2).T
        p = np.clip(p, low, high)
        offset = np.array([_logit(t) for t in self.thresholds])
        return np.asarray(np.asarray(self.weights) / self.unit * (np.log(p / (1 - p)) - offset), np.float64)

    def needed(self, words: Sequence[int]) -> tuple[int, ...]:
        """The classes whose probability the choice between these words depends on."""
        if len(words) == 1:
            return ()
        table = self.book.table[list(words)]
        differing = np.asarray(table.any(axis=0)) & ~np.asarray(table.all(axis=0))
        return tuple(
            i for i in range(len(self.book.classes)) if i in self.hard or (differing[i] and self.weights[i] > 0)
        )

    def decide(
        self, probabilities: Mapping[int, Values] | Sequence[Values], words: Sequence[int] | None = None
    ) -> Codes:
        """The number of the codeword with the most evidence, for every voxel: uint8, shape of an input.

        ``probabilities`` are found by the class's place in ``book.classes``; of ``words`` (default: all), which
        are two or more, only the ``needed`` ones are looked at.
        """
        words = tuple(range(len(self.book.words))) if words is None else tuple(words)
        needed = self.needed(words)
        if not needed:
            shape = np.shape(probabilities[0]) if len(probabilities) else (0,)
            return np.full(shape, words[0], np.uint8)
        shape = probabilities[needed[0]].shape
        flat = {i: np.ascontiguousarray(probabilities[i], dtype=np.float32).reshape(-1) for i in needed}
        codes = np.empty(flat[needed[0]].size, np.uint8)
        # pieces small enough for the processor's cache
        for start in range(0, codes.size, _CHUNK):
            part = {i: p[start : start + _CHUNK] for i, p in flat.items()}
            codes[start : start + _CHUNK] = self._decide_piece(part, words)
        return codes.reshape(shape)

    def _decide_piece(self, ps: Mapping[int, Values], words: tuple[int, ...]) -> Codes:
        evidence = {i: self.evidence(i, p) for i, p in ps.items() if i not in self.hard}
        size = next(iter(ps.values())).size
        if not self.hard:
            return _best(evidence, size, self.book, words)
        codes = np.zeros(size, np.uint8)
        for pattern, where in _patterns([ps[i] > self.thresholds[i] for i in self.hard]):
            chosen = {i: e[where] for i, e in evidence.items()}
            codes[where] = _best(chosen, len(where), self.book, self._obeying(pattern, words))
        return codes

    def _obeying(self, pattern: Sequence[bool], words: tuple[int, ...]) -> tuple[int, ...]:
        """The words that agree with the hard classes, the first of them first."""
        table = self.book.table
        for index, present in zip(self.hard, pattern, strict=True):
            words = tuple(w for w in words if table[w, index] == present) or words
        return words

    def redecide(self, probability: Callable[[int], Values], codes: Codes, lost: str) -> Codes:
        """New codewords, uint8 (n,), for voxels of ``codes`` (n,) that lose the class ``lost``.

        Ancestors and unrelated instance classes stay. ``probability`` gives a class's array (n,) by its place in
        ``book.classes``; it is only called where the choice depends on the class.
        """
        ps: dict[int, Values] = {}
        new = codes.copy()
        for word in np.unique(codes):
            if lost not in self.book.words[word]:
                continue
            where = codes == word
            allowed = self.book.without(int(word), lost)
            for index in self.needed(allowed):
                if index not in ps:
                    ps[index] = probability(index)
            here = {i: ps[i][where] for i in self.needed(allowed)}
            new[where] = self.decide(here, allowed) if here else allowed[0]
        return new


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _clip_bounds(threshold: float) -> tuple[float, float]:
    """Bounds for p that keep a threshold between them."""
    return min(_CERTAIN, threshold), 1 - min(_CERTAIN, (1 - threshold) / 2)


def _best(evidence: Mapping[int, Units], size: int, book: Codebook, words: tuple[int, ...]) -> Codes:
    """Number of the word with the largest sum of evidence; ties go to the smaller number.

    Classes without evidence add nothing. The word's number rides in the low bits of the sum, so that one
    maximum finds both.
    """
    if len(words) == 1:
        return np.full(size, words[0], np.uint8)
    steps = _steps(book, words)
    common = frozenset.intersection(*(book.words[w] for w in words))
    bare = [w for w in words if book.words[w] == common]
    last = (1 << _WORD_BITS) - 1
    sums = np.zeros((max(s.depth for s in steps) + 1, size), np.int32)
    best = np.full(size, last - bare[0] if bare else np.iinfo(np.int32).min, np.int32)
    candidate = np.empty(size, np.int32)
    for step in steps:
        total, above = sums[step.depth], sums[step.depth - 1]
        if step.index in evidence:
            np.add(above, evidence[step.index], out=total)
        else:
            total[...] = above
        if step.word is not None:
            np.left_shift(total, _WORD_BITS, out=candidate)
            np.add(candidate, last - step.word, out=candidate)
            np.maximum(best, candidate, out=best)
    return (last - (best & last)).astype(np.uint8)


def _patterns(masks: list[NDArray[np.bool_]]) -> Iterable[tuple[tuple[bool, ...], NDArray[np.int64]]]:
    """Each combination of ``masks`` that occurs, with the indices where it does."""
    key = np.zeros(masks[0].shape, np.int64)
    for bit, mask in enumerate(masks):
        key |= mask.astype(np.int64) << bit
    for value in np.unique(key):
        yield tuple(bool(value >> bit & 1) for bit in range(len(masks))), np.flatnonzero(key == value)


@dataclass(frozen=True)
class _Step:
    """One addition: the sum at ``depth`` becomes the sum above it plus class ``index``'s evidence."""

    depth: int
    index: int
    word: int | None


@lru_cache(maxsize=4096)
def _steps(book: Codebook, words: tuple[int, ...]) -> tuple[_Step, ...]:
    """The additions that evaluate ``words``, shared where words share classes: a trie in preorder.

    Classes that all the words hold cancel and are left out.
    """
    common = frozenset.intersection(*(book.words[w] for w in words))
    largest_first = [name for name in ancestors_first(book.classes) if name not in common]
    paths = {tuple(book.classes.index(name) for name in largest_first if name in book.words[w]): w for w in words}
    nodes = {path[:length] for path in paths for length in range(1, len(path) + 1)}
    return tuple(_Step(len(node), node[-1], paths.get(node)) for node in sorted(nodes))
