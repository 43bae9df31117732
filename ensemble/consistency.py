"""One decision per voxel for all classes at once, so that parts and wholes never contradict each other.

A *codeword* is a set of claimed classes that one place in a cell can belong to: for every atom, the claimed
classes that contain it. Joint decoding gives each voxel the codeword with the most evidence, so a crop's
whole segmentation is one volume of codeword numbers and every class's mask is a look-up in it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from ensemble import taxonomy

FINEST_UNIT = 2.0**-12
"""Evidence is counted in whole units, so that sums are exact and ties are ties whatever the order."""

_CERTAIN = 1 / 510
"""Stored probabilities cannot tell anything nearer to 0 or 1 than this."""

_WORD_BITS = 8
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Codebook:
    """The codewords of a set of claimed classes, shortest first, then in the order of the atoms' ids.

    Word 0 is the empty one. ``classes`` are in the order of their ids.
    """

    classes: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[frozenset[str], ...]:
        seen: dict[frozenset[str], None] = {frozenset(): None}
        for atom in taxonomy.atoms():
            seen[frozenset(name for name in self.classes if atom in taxonomy.leaf(name))] = None
        return tuple(sorted(seen, key=len))

    @cached_property
    def table(self) -> np.ndarray:
        """Which word holds which class: bool, (words, classes)."""
        return np.array([[name in word for name in self.classes] for word in self.words], dtype=bool).reshape(
            len(self.words), len(self.classes)
        )

    def holds(self, name: str) -> np.ndarray:
        """Look-up from word number to whether the word holds the class: bool, (words,)."""
        return self.table[:, self.classes.index(name)]

    @cached_property
    def instances_of(self) -> tuple[frozenset[str], ...]:
        """The instance classes of each word."""
        return tuple(frozenset(n for n in word if taxonomy.is_instance(n)) for word in self.words)

    def without(self, word: int, lost: str) -> tuple[int, ...]:
        """Words a voxel of ``word`` may take when it loses ``lost``.

        They lack the class, and their instance classes are the old ones less it and its descendants.
        """
        gone = taxonomy.descendants(lost, self.classes) | {lost}
        kept = self.instances_of[word] - gone
        return tuple(
            number for number, other in enumerate(self.words) if lost not in other and self.instances_of[number] == kept
        )


@cache
def codebook(claimed: Iterable[str]) -> Codebook:
    """The codebook of a (hashable) set of claimed classes."""
    ids = taxonomy.classes()
    return Codebook(tuple(sorted(claimed, key=lambda name: ids[name].id)))


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
            (sum(self.weights[i] * self._widest(i) for i in np.flatnonzero(row)) for row in self.book.table),
            default=0.0,
        )
        room = 2.0 ** (30 - _WORD_BITS)
        return max(FINEST_UNIT, 2.0 ** math.ceil(math.log2(max(most, 1e-9) / room)))

    def _widest(self, index: int) -> float:
        low, high = _clip_bounds(self.thresholds[index])
        offset = _logit(self.thresholds[index])
        return max(abs(_logit(low) - offset), abs(_logit(high) - offset)) + 1

    def evidence(self, index: int, probability: np.ndarray) -> np.ndarray:
        """w (logit p - logit t) of one class in whole units, int32; positive exactly where p > t and w > 0.

        Probabilities are taken no nearer to 0 and 1 than 1/510.
        """
        threshold, weight = self.thresholds[index], self.weights[index]
        if weight == 0 or index in self.hard:
            return np.zeros(probability.shape, np.int32)
        p = np.clip(probability, *_clip_bounds(threshold), dtype=np.float32)
        e = np.subtract(np.float32(1), p)
        np.divide(p, e, out=e)
        np.log(e, out=e)
        e -= np.float32(_logit(threshold))
        e *= np.float32(weight / self.unit)
        units = np.rint(e, out=e).astype(np.int32)
        above = probability > threshold
        return np.where(above, np.maximum(units, 1), np.minimum(units, 0))

    def decide(self, probabilities: Sequence[np.ndarray], allowed: Sequence[int] | None = None) -> np.ndarray:
        """The number of the codeword with the most evidence, for every voxel: uint8, shape of an input.

        ``probabilities`` follow ``book.classes``. With ``allowed`` only those words are considered.
        """
        shape = probabilities[0].shape if probabilities else (0,)
        words = tuple(range(len(self.book.words))) if allowed is None else tuple(allowed)
        flat = [np.ascontiguousarray(p, dtype=np.float32).reshape(-1) for p in probabilities]
        evidence = [self.evidence(index, p) for index, p in enumerate(flat)]
        if not self.hard:
            return _best(evidence, self.book, words).reshape(shape)
        codes = np.zeros(flat[0].size, np.uint8)
        for pattern, where in _patterns([flat[i] > self.thresholds[i] for i in self.hard]):
            chosen = self._obeying(pattern, words)
            codes[where] = _best([e[where] for e in evidence], self.book, chosen)
        return codes.reshape(shape)

    def _obeying(self, pattern: Sequence[bool], words: tuple[int, ...]) -> tuple[int, ...]:
        """The words that agree with the hard classes, the first of them first."""
        table = self.book.table
        for index, present in zip(self.hard, pattern, strict=True):
            words = tuple(w for w in words if table[w, index] == present) or words
        return words

    def redecide(self, probabilities: Callable[[], Sequence[np.ndarray]], codes: np.ndarray, lost: str) -> np.ndarray:
        """New codewords, uint8 (n,), for voxels of ``codes`` (n,) that lose the class ``lost``.

        Ancestors and unrelated instance classes stay. ``probabilities`` gives arrays (n,), one for each class
        of the book; it is only called where there is a choice.
        """
        new = codes.copy()
        ps: Sequence[np.ndarray] | None = None
        for word in np.unique(codes):
            if lost not in self.book.words[word]:
                continue
            where = codes == word
            allowed = self.book.without(int(word), lost)
            if len(allowed) == 1:
                new[where] = allowed[0]
                continue
            ps = probabilities() if ps is None else ps
            new[where] = self.decide([p[where] for p in ps], allowed)
        return new


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _clip_bounds(threshold: float) -> tuple[float, float]:
    """Bounds for p that keep a threshold between them."""
    return min(_CERTAIN, threshold), 1 - min(_CERTAIN, (1 - threshold) / 2)


def _patterns(masks: list[np.ndarray]) -> Iterable[tuple[tuple[bool, ...], np.ndarray]]:
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


@cache
def _steps(book: Codebook, words: tuple[int, ...]) -> tuple[_Step, ...]:
    """The additions that evaluate ``words``, shared where words share classes: a trie in preorder."""
    largest_first = taxonomy.ancestors_first(book.classes)
    paths = {tuple(book.classes.index(name) for name in largest_first if name in book.words[w]): w for w in words}
    nodes = {path[:length] for path in paths for length in range(1, len(path) + 1)}
    return tuple(_Step(len(node), node[-1], paths.get(node)) for node in sorted(nodes))


def _best(evidence: list[np.ndarray], book: Codebook, words: tuple[int, ...]) -> np.ndarray:
    """Number of the word with the largest sum of evidence; ties go to the smaller number.

    The word's number rides in the low bits of the sum, so that one maximum finds both.
    """
    size = evidence[0].size
    if len(words) == 1:
        return np.full(size, words[0], np.uint8)
    steps = _steps(book, words)
    codes = np.empty(size, np.uint8)
    chunk = min(_CHUNK, max(size, 1))
    sums = np.empty((max((s.depth for s in steps), default=0) + 1, chunk), np.int32)
    best, candidate = np.empty(chunk, np.int32), np.empty(chunk, np.int32)
    last = (1 << _WORD_BITS) - 1
    for start in range(0, size, chunk):
        n = min(chunk, size - start)
        sums[0, :n] = 0
        best[:n] = last if 0 in words else np.iinfo(np.int32).min
        for step in steps:
            total = sums[step.depth, :n]
            np.add(sums[step.depth - 1, :n], evidence[step.index][start : start + n], out=total)
            if step.word is not None:
                np.left_shift(total, _WORD_BITS, out=candidate[:n])
                np.add(candidate[:n], last - step.word, out=candidate[:n])
                np.maximum(best[:n], candidate[:n], out=best[:n])
        codes[start : start + n] = last - (best[:n] & last)
    return codes


@cache
def automaton(book: Codebook) -> tuple[np.ndarray, ...]:
    """For each class a table (states, 2) from state and bit to the next state.

    A state stands for the bits read so far; 0 is dead (no codeword begins so), 1 is the start.
    """
    level: dict[tuple[bool, ...], int] = {(): 1}
    tables = []
    for index in range(len(book.classes)):
        following: dict[tuple[bool, ...], int] = {}
        table = np.zeros((len(level) + 1, 2), np.uint16)
        for row in sorted({tuple(bool(b) for b in row[: index + 1]) for row in book.table}):
            following[row] = len(following) + 1
            table[level[row[:-1]], int(row[-1])] = following[row]
        tables.append(table)
        level = following
    return tuple(tables)
