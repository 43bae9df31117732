"""A crop's segmentation as one volume of codeword numbers: every class's mask is a look-up in it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.codebook import Codebook
from ensemble.core.tiling import blocks, chunk_shape


class ArrayLike(Protocol):
    """What is read and written block by block: a Zarr or NumPy array (z, y, x)."""

    def __getitem__(self, index: Any) -> Any: ...

    def __setitem__(self, index: Any, value: np.ndarray) -> None: ...


class CodewordVolume:
    """The volume of codeword numbers ``codes`` (z, y, x), and which words each of its chunks may hold."""

    def __init__(self, book: Codebook, codes: ArrayLike, shape: Sequence[int]) -> None:
        self.book, self.codes, self.shape = book, codes, tuple(shape)
        self.chunk = chunk_shape(shape)
        self._counts = [-(-n // c) for n, c in zip(shape, self.chunk, strict=True)]
        self._present = np.zeros((*self._counts, len(book.words)), bool)

    def blocks(self) -> list[Slices]:
        """All chunks, as blocks of voxels."""
        return blocks(self.shape, self.chunk)

    def blocks_in(self, band: Slices) -> list[Slices]:
        """The chunks of a band that begins with one."""
        size = [s.stop - s.start for s in band]
        return [
            tuple(slice(s.start + b.start, s.start + b.stop) for s, b in zip(band, block, strict=True))
            for block in blocks(size, self.chunk)
        ]

    def blocks_touching(self, boxes: np.ndarray) -> list[Slices]:
        """The chunks that any of the boxes (n, 2, 3: start and stop) reaches into."""
        touched = np.zeros(self._counts, bool)
        for start, stop in boxes:
            touched[tuple(slice(a // c, -(-b // c)) for a, b, c in zip(start, stop, self.chunk, strict=True))] = True
        return [block for block in self.blocks() if touched[self._number(block)]]

    def now_hold(self, block: Slices, words: Sequence[int]) -> None:
        """Say which words a chunk holds, as ``values`` tells."""
        held = self._present[self._number(block)]
        held[:] = False
        held[list(words)] = True

    def held(self, block: Slices) -> np.ndarray:
        """The words that a chunk may hold."""
        return np.flatnonzero(self._present[self._number(block)])

    def occupied(self, name: str) -> np.ndarray:
        """The chunks that may hold a class: bool (chunks z, y, x)."""
        return self._present[..., self.book.holds(name)].any(axis=-1)

    def mask(self, name: str, block: Slices) -> np.ndarray:
        """Where a class is on any block: bool."""
        codes = np.asarray(self.codes[block])
        under = tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(block, self.chunk, strict=True))
        mask = member(codes, np.flatnonzero(self._present[under].any(axis=(0, 1, 2))), self.book.holds(name))
        return np.zeros(codes.shape, bool) if mask is None else mask

    def _number(self, block: Slices) -> tuple[int, ...]:
        return tuple(s.start // c for s, c in zip(block, self.chunk, strict=True))


def values(codes: np.ndarray) -> list[int]:
    """The words that occur."""
    return np.flatnonzero(np.bincount(codes.reshape(-1))).tolist()


def member(codes: np.ndarray, words: np.ndarray, holds: np.ndarray) -> np.ndarray | None:
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
