"""What stored arrays hold, counted block by block: values, ids, objects, and classes that contradict.

Only chunks that were written are looked at. Masks are compared as bits, 64 voxels to a word.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.codebook import Codebook, codebook_of
from ensemble.core.contradictions import Violations, count_violations, pack_bits, violating_voxels
from ensemble.core.grid import Grid
from ensemble.methods.components import Components
from ensemble.submission.stored_array import StoredArray
from ensemble.support.errors import SubmissionError

Index = tuple[int, ...]

MAX_BLOCK_VOXELS = 2**26
_EXAMPLES_PER_BLOCK = 64


@dataclass
class ArrayTotals:
    """What is known of one array. ``odd`` are voxels (position, value) whose value is neither 0 nor 1.

    ``odd`` holds the first such voxel of each block, and only where they were asked for; ``damaged`` the
    message of each chunk that cannot be decoded. Ids are counted where an array may hold more than 0 and 1.
    """

    nonzero_voxels: int = 0
    highest_id: int = 0
    odd: list[tuple[Index, float]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    _ids: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _at_border: list[np.ndarray] = field(default_factory=list)

    @cached_property
    def sizes_voxels(self) -> np.ndarray:
        """Of every id but 0 its voxels, in the order of the ids."""
        if not self._ids:
            return np.zeros(0, np.int64)
        ids, where = np.unique(np.concatenate([ids for ids, _ in self._ids]), return_inverse=True)
        sizes = np.bincount(where, np.concatenate([sizes for _, sizes in self._ids])).astype(np.int64)
        return sizes[ids != 0]

    @property
    def distinct_ids(self) -> int:
        """Number of different ids but 0."""
        return len(self.sizes_voxels)

    @property
    def at_border(self) -> int:
        """Number of ids that reach the array's border."""
        return int(np.count_nonzero(np.unique(np.concatenate(self._at_border)))) if self._at_border else 0

    def add(self, other: "ArrayTotals") -> None:
        self.nonzero_voxels += other.nonzero_voxels
        self.highest_id = max(self.highest_id, other.highest_id)
        self.odd += other.odd
        # a chunk may lie under several blocks
        self.damaged += [message for message in other.damaged if message not in self.damaged]
        self._ids += other._ids
        self._at_border += other._at_border


@dataclass
class ContradictionCount:
    """Voxels whose set of nonzero arrays is not a codeword; ``examples``: offending set -> one voxel."""

    count_violations: Violations = field(default_factory=Violations)
    examples: dict[frozenset[str], Index] = field(default_factory=dict)

    def add(self, other: "ContradictionCount") -> None:
        self.broken.add(other.broken)
        self.examples = other.examples | self.examples


@dataclass(frozen=True)
class ArrayGroup:
    """Arrays of one shape that are counted together, block by block.

    ``binary`` are those that may hold 0 and 1 only; ``claimed`` those that must not contradict each other.
    """

    arrays: Mapping[str, StoredArray]
    binary: frozenset[str] = frozenset()
    claimed: tuple[str, ...] = ()

    @cached_property
    def shape(self) -> Index:
        return next(iter(self.arrays.values())).shape

    @cached_property
    def block_shape(self) -> Index:
        """A block holds whole chunks of every array, as far as it stays of moderate size."""
        chunks = [np.minimum(array.chunks, self.shape) for array in self.arrays.values()]
        block = np.max(chunks, axis=0)
        most = max(MAX_BLOCK_VOXELS, max(math.prod(map(int, chunk)) for chunk in chunks))
        while math.prod(map(int, block)) > most:
            longest = int(np.argmax(block))
            block[longest] = -(-block[longest] // 2)
        return tuple(map(int, block))

    @cached_property
    def blocks(self) -> Mapping[Index, tuple[str, ...]]:
        """The blocks that hold anything, and the arrays that do; in C order."""
        found: dict[Index, list[str]] = {}
        for name, array in self.arrays.items():
            for index in self._blocks_of(array):
                found.setdefault(index, []).append(name)
        return {index: tuple(found[index]) for index in sorted(found)}

    def _blocks_of(self, array: StoredArray) -> Iterable[Index]:
        if array.chunks == self.block_shape:
            return array.present
        touched: dict[Index, None] = {}
        for chunk in array.present:
            ranges = (
                range(i * c // b, (min((i + 1) * c, n) - 1) // b + 1)
                for i, c, b, n in zip(chunk, array.chunks, self.block_shape, self.shape, strict=True)
            )
            touched.update(dict.fromkeys(product(*ranges)))
        return touched

    @property
    def bytes_per_block(self) -> int:
        """About what counting one block takes at most."""
        widest = max(array.dtype.itemsize for array in self.arrays.values())
        return math.prod(self.block_shape) * (2 * widest + 1 + len(self.arrays) // 8)

    def count(self, index: Index) -> tuple[dict[str, ArrayTotals], ContradictionCount]:
        """Totals of the arrays that hold anything in a block, and the block's contradictions."""
        block = tuple(
            slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(index, self.block_shape, self.shape, strict=True)
        )
        totals, planes = {}, {}
        for name in self.blocks[index]:
            totals[name], planes[name] = _count(self.arrays[name], block, binary=name in self.binary)
        # what is left of a codeword without an unreadable class is a codeword of the others
        readable = tuple(n for n in self.claimed if n not in totals or not totals[n].damaged)
        book = codebook_of(readable)
        return totals, _contradictions(book, [planes.get(name) for name in book.classes], block)


def _count(array: StoredArray, block: Slices, *, binary: bool) -> tuple[ArrayTotals, np.ndarray | None]:
    """What an array holds in a block, and its nonzero voxels as bits (None: there are none)."""
    decoded, damaged = {}, []
    for chunk in array.chunks_in(block):
        try:
            decoded[chunk] = array.read_chunk(chunk)
        except SubmissionError as error:
            damaged.append(str(error))
    total = ArrayTotals(damaged=damaged)
    if not decoded:
        return total, None
    values = array.assemble(block, decoded)
    bits = pack_bits(values)
    total.nonzero_voxels = int(np.bitwise_count(bits).sum())
    if not total.nonzero_voxels:
        return total, None
    whole = values.dtype.kind in "biu"
    total.highest_id = int(values.max()) if whole else 0
    if binary and not (values.dtype.kind in "bu" and total.highest_id <= 1):
        total.odd = _first_odd(values, block)
    elif whole and not binary:
        total._ids = [_distinct(values)]
        total._at_border = [np.unique(face) for face in _faces(values, block, array.shape)]
    return total, bits


def _faces(values: np.ndarray, block: Slices, shape: Sequence[int]) -> Iterable[np.ndarray]:
    """The planes of a block that lie at the array's border."""
    for axis, (s, n) in enumerate(zip(block, shape, strict=True)):
        if s.start == 0:
            yield values.take(0, axis)
        if s.stop == n:
            yield values.take(-1, axis)


def _bit_numbers(bits: np.ndarray, most: int) -> np.ndarray:
    """Numbers of the first ``most`` bits that are set."""
    words = np.flatnonzero(bits)[:most]
    within = np.unpackbits(bits[words].view(np.uint8)).reshape(-1, 64)
    word, bit = np.nonzero(within)
    return (words[word] * 64 + bit)[:most]


def _first_odd(values: np.ndarray, block: Slices) -> list[tuple[Index, float]]:
    odd = (values != 0) & (values != 1)
    first = np.unravel_index(int(odd.argmax()), odd.shape)
    return [(_position(first, block), values[first].item())] if odd[first] else []


def _position(local: Sequence[int], block: Slices) -> Index:
    return tuple(int(i) + s.start for i, s in zip(local, block, strict=True))


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids in a block, and how many voxels each has."""
    flat = values.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # ids come in runs
    ids, where = np.unique(flat[starts], return_inverse=True)
    return ids, np.bincount(where, np.diff(starts, append=flat.size)).astype(np.int64)


def _contradictions(book: Codebook, planes: Sequence[np.ndarray | None], block: Slices) -> ContradictionCount:
    if all(plane is None for plane in planes):
        return ContradictionCount()
    wrong = violating_voxels(book, planes)
    found = ContradictionCount(count_violations(book, planes, wrong))
    shape = [s.stop - s.start for s in block]
    for number in _bit_numbers(wrong, _EXAMPLES_PER_BLOCK) if found.broken.voxels else ():
        word, shift = divmod(int(number), 64)
        held = frozenset(
            name
            for name, plane in zip(book.classes, planes, strict=True)
            if plane is not None and np.unpackbits(plane[word : word + 1].view(np.uint8))[shift]
        )
        found.examples.setdefault(held, _position(np.unravel_index(number, shape), block))
    return found


def objects_of(array: StoredArray) -> tuple[np.ndarray, int]:
    """The voxels of each 26-connected object of an array's nonzero voxels, and how many reach the array's border."""
    if not array.present:
        return np.zeros(0, np.int64), 0
    chunks = np.array(list(array.present))
    start = chunks.min(axis=0) * array.chunks
    stop = np.minimum((chunks.max(axis=0) + 1) * array.chunks, array.shape)
    box = [slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)]

    def read(block: Slices) -> np.ndarray:
        return (
            array.read(tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, block, strict=True))) != 0
        )

    grid = Grid(tuple(s.stop - s.start for s in box), (1, 1, 1), (0, 0, 0))
    found = Components(grid, read).objects
    low, high = np.add(found.start, start), np.add(found.stop, start)
    return found.size_voxels, int(np.count_nonzero(((low == 0) | (high == array.shape)).any(axis=1)))
