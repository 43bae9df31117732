"""A crop's segmentation as one volume of codeword numbers: every class's mask is a look-up in it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, BoxArray, Codebook, VoxelsZYX, blocks, chunk_shape


class CodewordVolume:
    """The volume of codeword numbers ``codes`` (z, y, x), and which words each of its chunks may hold.

    ``present``: the latter, bool (chunks z, y, x, words); None: nothing is there yet.
    """

    def __init__(
        self, book: Codebook, codes: BoxArray, shape: VoxelsZYX, present: NDArray[np.bool_] | None = None
    ) -> None:
        self.book, self.codes, self.shape = book, codes, shape
        self.chunk = chunk_shape(shape)
        chunks = Box.of_shape(shape).to_chunks(self.chunk)
        self.present = np.zeros((*chunks.shape, len(book.words)), bool) if present is None else present

    def blocks(self) -> list[Box]:
        """All chunks, as boxes of voxels."""
        return blocks(self.shape, self.chunk)

    def blocks_in(self, band: Box) -> list[Box]:
        """The chunks of a band that begins with one."""
        return list(band.tiles(self.chunk))

    def blocks_touching(self, boxes: NDArray[np.int64]) -> list[Box]:
        """The chunks that any of the boxes (n, 2, 3: start and stop) reaches into."""
        touched = np.zeros(self.present.shape[:3], bool)
        first, last = boxes[:, 0] // self.chunk, -(-boxes[:, 1] // self.chunk)
        for z, y, x, z_end, y_end, x_end in np.unique(np.concatenate([first, last], axis=1), axis=0):
            touched[z:z_end, y:y_end, x:x_end] = True
        return [block for block in self.blocks() if touched[self._number(block)]]

    def now_hold(self, block: Box, words: Sequence[int]) -> None:
        """Say which words a chunk holds, as ``words_in`` tells."""
        present = self.present[self._number(block)]
        present[:] = False
        present[list(words)] = True

    def words_of(self, block: Box) -> NDArray[np.int64]:
        """The words that a chunk may hold."""
        return np.flatnonzero(self.present[self._number(block)])

    def occupied(self, name: str) -> NDArray[np.bool_]:
        """The chunks that may hold a class: (chunks z, y, x)."""
        return np.asarray(self.present[..., self.book.holds(name)].any(axis=-1))

    def mask(self, name: str, box: Box) -> NDArray[np.bool_]:
        """Where a class is on any box."""
        codes = np.asarray(self.codes[box])
        under = self.present[box.to_chunks(self.chunk).slices]
        mask = mask_of(codes, np.flatnonzero(under.any(axis=(0, 1, 2))), self.book.holds(name))
        return np.zeros(codes.shape, bool) if mask is None else mask

    def _number(self, block: Box) -> VoxelsZYX:
        return block.to_chunks(self.chunk).start


def words_in(codes: NDArray[np.uint8]) -> list[int]:
    """The words that occur."""
    words: list[int] = np.flatnonzero(np.bincount(codes.reshape(-1))).tolist()
    return words


def mask_of(codes: NDArray[np.uint8], words: NDArray[np.int64], holds: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Where the code is one of those ``words`` that hold a class: bool, or None for nowhere.

    ``words`` are all that ``codes`` may hold; comparing with each is quicker than a look-up.
    """
    inside, outside = words[holds[words]], words[~holds[words]]
    if not len(inside):
        return None
    fewer = inside if len(inside) <= len(outside) else outside
    mask = np.zeros(codes.shape, bool)
    for word in fewer:
        mask |= codes == word
    return mask if fewer is inside else ~mask
