"""What stored arrays hold, counted block by block: values, ids, objects, and classes that contradict.

Only chunks that were written are looked at. Masks are compared as bits, 64 voxels to a word.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core import (
    Box,
    Codebook,
    Grid,
    Violations,
    VoxelsZYX,
    codebook_of,
    count_violations,
    pack_bits,
    violating_voxels,
    zyx,
)
from ensemble.methods import Components
from ensemble.submission.stored_array import ChunkIndex, StoredArray
from ensemble.support import SubmissionError

Index = tuple[int, ...]
"""A voxel or a block, along each axis of an array."""

Bits = NDArray[np.uint64]

MAX_BLOCK_VOXELS = 2**26
_EXAMPLES_PER_BLOCK = 64


@dataclass
class ArrayTotals:
    """What is known of one array. ``odd`` are voxels (position, value) whose value is neither 0 nor 1.

    ``odd`` holds the first such voxel of each block, and only where they were asked for; ``damaged`` the
    message of each chunk that cannot be decoded. Ids are counted where an array may hold more than 0 and 1:
    ``ids`` with their voxels, block by block, and those ``border_ids`` that lie at the array's border.
    """

    nonzero_voxels: int = 0
    highest_id: int = 0
    odd: list[tuple[Index, float]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    ids: list[tuple[NDArray[Any], NDArray[np.int64]]] = field(default_factory=list)
    border_ids: list[NDArray[Any]] = field(default_factory=list)

    @cached_property
    def sizes_voxels(self) -> NDArray[np.int64]:
        """Of every id but 0 its voxels, in the order of the ids."""
        if not self.ids:
            return np.zeros(0, np.int64)
        ids, where = np.unique(np.concatenate([ids for ids, _ in self.ids]), return_inverse=True)
        sizes = np.bincount(where, np.concatenate([sizes for _, sizes in self.ids])).astype(np.int64)
        return np.asarray(sizes[ids != 0])

    @property
    def distinct_ids(self) -> int:
        """Number of different ids but 0."""
        return len(self.sizes_voxels)

    @property
    def at_border(self) -> int:
        """Number of ids that reach the array's border."""
        return int(np.count_nonzero(np.unique(np.concatenate(self.border_ids)))) if self.border_ids else 0

    def add(self, other: "ArrayTotals") -> None:
        self.nonzero_voxels += other.nonzero_voxels
        self.highest_id = max(self.highest_id, other.highest_id)
        self.odd += other.odd
        # a chunk may lie under several blocks
        self.damaged += [message for message in other.damaged if message not in self.damaged]
        self.ids += other.ids
        self.border_ids += other.border_ids


@dataclass
class ContradictionCount:
    """Voxels whose set of nonzero arrays is not a codeword; ``examples``: offending set -> one voxel."""

    violations: Violations = field(default_factory=Violations)
    examples: dict[frozenset[str], Index] = field(default_factory=dict)

    def add(self, other: "ContradictionCount") -> None:
        self.violations.add(other.violations)
        self.examples = other.examples | self.examples


class CountedArrays(Protocol):
    """Arrays that are counted together, block by block."""

    @property
    def arrays(self) -> Mapping[str, StoredArray]: ...

    @property
    def blocks(self) -> Mapping[Index, tuple[str, ...]]:
        """The blocks that hold anything, and the arrays that do; in C order."""
        ...

    @property
    def bytes_per_block(self) -> int:
        """About what counting one block takes at most."""
        ...

    def count(self, index: Index) -> tuple[dict[str, ArrayTotals], ContradictionCount]:
        """Totals of the arrays that hold anything in a block, and the block's contradictions."""
        ...


@dataclass(frozen=True)
class ArrayGroup:
    """Arrays of one shape (z, y, x).

    ``binary`` are those that may hold 0 and 1 only; ``claimed`` those that must not contradict each other.
    """

    arrays: Mapping[str, StoredArray]
    binary: frozenset[str] = frozenset()
    claimed: tuple[str, ...] = ()

    @cached_property
    def shape(self) -> VoxelsZYX:
        return next(iter(self.arrays.values())).shape_zyx

    @cached_property
    def block_shape(self) -> VoxelsZYX:
        """A block holds whole chunks of every array, as far as it stays of moderate size."""
        chunks = [np.minimum(array.chunks_zyx, self.shape) for array in self.arrays.values()]
        block = np.max(chunks, axis=0)
        most = max(MAX_BLOCK_VOXELS, max(math.prod(map(int, chunk)) for chunk in chunks))
        while math.prod(map(int, block)) > most:
            longest = int(np.argmax(block))
            block[longest] = -(-block[longest] // 2)
        return zyx(block)

    @cached_property
    def blocks(self) -> Mapping[Index, tuple[str, ...]]:
        names: dict[Index, list[str]] = {}
        for name, array in self.arrays.items():
            for index in self._blocks_of(array):
                names.setdefault(index, []).append(name)
        return {index: tuple(names[index]) for index in sorted(names)}

    def _blocks_of(self, array: StoredArray) -> Iterable[Index]:
        if array.chunks == self.block_shape:
            return array.present
        touched: dict[Index, None] = {}
        for chunk in array.present:
            touched.update(dict.fromkeys(array.chunk_box(chunk).to_chunks(self.block_shape).indices()))
        return touched

    @property
    def bytes_per_block(self) -> int:
        widest = max(array.dtype.itemsize for array in self.arrays.values())
        return math.prod(self.block_shape) * (2 * widest + 1 + len(self.arrays) // 8)

    def count(self, index: Index) -> tuple[dict[str, ArrayTotals], ContradictionCount]:
        box = Box.at(index, (1, 1, 1)).of_chunks(self.block_shape).intersect(Box.of_shape(self.shape))
        totals, planes = {}, {}
        for name in self.blocks[index]:
            array = self.arrays[name]
            decoded, totals[name] = _decoded(array, array.chunks_in(box))
            if decoded:
                values = array.assemble(box, decoded)
                planes[name] = _count_values(totals[name], values, box.start, self.shape, binary=name in self.binary)
        # what is left of a codeword without an unreadable class is a codeword of the others
        readable = tuple(n for n in self.claimed if n not in totals or not totals[n].damaged)
        book = codebook_of(readable)
        return totals, _contradictions(book, [planes.get(name) for name in book.classes], box)


@dataclass(frozen=True)
class LoneArray:
    """An array of any shape and rank, counted by itself, chunk by chunk; ``binary``: it may hold 0 and 1 only."""

    name: str
    array: StoredArray
    binary: bool = False

    @property
    def arrays(self) -> Mapping[str, StoredArray]:
        return {self.name: self.array}

    @cached_property
    def blocks(self) -> Mapping[Index, tuple[str, ...]]:
        return dict.fromkeys(sorted(self.array.present), (self.name,))

    @property
    def bytes_per_block(self) -> int:
        largest = math.prod(min(c, n) for c, n in zip(self.array.chunks, self.array.shape, strict=True))
        return largest * (2 * self.array.dtype.itemsize + 1)

    def count(self, index: Index) -> tuple[dict[str, ArrayTotals], ContradictionCount]:
        decoded, totals = _decoded(self.array, [index])
        for values in decoded.values():
            start = tuple(i * c for i, c in zip(index, self.array.chunks, strict=True))
            _count_values(totals, values, start, self.array.shape, binary=self.binary)
        return {self.name: totals}, ContradictionCount()


def _decoded(array: StoredArray, chunks: Iterable[ChunkIndex]) -> tuple[dict[ChunkIndex, NDArray[Any]], ArrayTotals]:
    """The chunks that can be decoded, and totals that name the others."""
    decoded, damaged = {}, []
    for chunk in chunks:
        try:
            decoded[chunk] = array.read_chunk(chunk)
        except SubmissionError as error:
            damaged.append(str(error))
    return decoded, ArrayTotals(damaged=damaged)


def _count_values(
    totals: ArrayTotals, values: NDArray[Any], start: Sequence[int], shape: Sequence[int], *, binary: bool
) -> Bits | None:
    """Note in ``totals`` what a block holds that begins at ``start`` of an array of ``shape``.

    Returns the block's nonzero voxels as bits; None where there are none.
    """
    bits = pack_bits(values)
    totals.nonzero_voxels = int(np.bitwise_count(bits).sum())
    if not totals.nonzero_voxels:
        return None
    whole = values.dtype.kind in "biu"
    totals.highest_id = int(values.max()) if whole else 0
    if binary and not (values.dtype.kind in "bu" and totals.highest_id <= 1):
        totals.odd = _first_odd(values, start)
    elif whole and not binary:
        totals.ids = [_distinct(values)]
        totals.border_ids = [np.unique(face) for face in _faces(values, start, shape)]
    return bits


def _faces(values: NDArray[Any], start: Sequence[int], shape: Sequence[int]) -> Iterable[NDArray[Any]]:
    """The planes of a block that lie at the array's border."""
    for axis, (begins, n) in enumerate(zip(start, shape, strict=True)):
        if begins == 0:
            yield values.take(0, axis)
        if begins + values.shape[axis] == n:
            yield values.take(-1, axis)


def _bit_numbers(bits: Bits, most: int) -> NDArray[np.int64]:
    """Numbers of the first ``most`` bits that are set."""
    words = np.flatnonzero(bits)[:most]
    within = np.unpackbits(bits[words].view(np.uint8)).reshape(-1, 64)
    word, bit = np.nonzero(within)
    return (words[word] * 64 + bit)[:most]


def _first_odd(values: NDArray[Any], start: Sequence[int]) -> list[tuple[Index, float]]:
    odd = (values != 0) & (values != 1)
    first = np.unravel_index(int(odd.argmax()), odd.shape)
    return [(_position(first, start), values[first].item())] if odd[first] else []


def _position(local: Iterable[Any], start: Iterable[int]) -> Index:
    return tuple(int(i) + begins for i, begins in zip(local, start, strict=True))


def _distinct(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids in a block, and how many voxels each has."""
    flat = values.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # ids come in runs
    ids, where = np.unique(flat[starts], return_inverse=True)
    return ids, np.bincount(where, np.diff(starts, append=flat.size)).astype(np.int64)


def _contradictions(book: Codebook, planes: Sequence[Bits | None], box: Box) -> ContradictionCount:
    if all(plane is None for plane in planes):
        return ContradictionCount()
    wrong = violating_voxels(book, planes)
    count = ContradictionCount(count_violations(book, planes, wrong))
    for number in _bit_numbers(wrong, _EXAMPLES_PER_BLOCK) if count.violations.voxels else ():
        word, shift = divmod(int(number), 64)
        classes = frozenset(
            name
            for name, plane in zip(book.classes, planes, strict=True)
            if plane is not None and np.unpackbits(plane[word : word + 1].view(np.uint8))[shift]
        )
        count.examples.setdefault(classes, _position(np.unravel_index(int(number), box.shape), box.start))
    return count


def objects_of(array: StoredArray) -> tuple[NDArray[np.int64], int]:
    """The voxels of each 26-connected object of an array's nonzero voxels, and how many reach the array's border."""
    if not array.present:
        return np.zeros(0, np.int64), 0
    chunks = np.array(list(array.present))
    touched = Box(zyx(chunks.min(axis=0)), zyx(chunks.max(axis=0) + 1))
    around = touched.of_chunks(array.chunks_zyx).intersect(Box.of_shape(array.shape_zyx))

    def read(box: Box) -> NDArray[np.bool_]:
        return np.asarray(array.read(box.shifted(around.start)) != 0)

    objects = Components.of(Grid(around.shape, (1, 1, 1), (0, 0, 0)), read).objects
    low, high = np.add(objects.start, around.start), np.add(objects.stop, around.start)
    at_border = ((low == 0) | (high == array.shape)).any(axis=1)
    return objects.size_voxels, int(np.count_nonzero(at_border))
