"""A crop's segmentation as one volume of codeword numbers: every class's mask is a look-up in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, BoxArray, Codebook, VoxelsZYX, blocks, chunk_shape


@dataclass(frozen=True)
class Layers:
    """Where each chunk of a volume lies: as it was decided, or in the layer of the class that it lost voxels of last.

    No chunk is ever overwritten: whoever reads by this reads the same, whatever is decided again meanwhile.
    ``of_chunk``: uint8 (chunks z, y, x), 0 as decided, k in the layer of the k-th of the classes in ``lost``.
    """

    of_chunk: NDArray[np.uint8]
    lost: tuple[str, ...] = ()

    def after(self, name: str, chunks: Sequence[VoxelsZYX]) -> "Layers":
        """These chunks lie in the layer of a further class now."""
        of_chunk = self.of_chunk.copy()
        for chunk in chunks:
            of_chunk[chunk] = len(self.lost) + 1
        return Layers(of_chunk, (*self.lost, name))


class CodewordVolume:
    """The volume of codeword numbers (z, y, x), and which words each of its chunks may hold.

    ``layer``: an array by the class that was lost, "" as decided. ``present``: bool (chunks z, y, x, words); None:
    nothing is there yet.
    """

    def __init__(
        self,
        book: Codebook,
        layer: Callable[[str], BoxArray],
        shape: VoxelsZYX,
        layers: Layers | None = None,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        self.book, self.shape, self.chunk = book, shape, chunk_shape(shape)
        self._layer = layer
        chunks = Box.of_shape(shape).to_chunks(self.chunk).shape
        self.layers = layers or Layers(np.zeros(chunks, np.uint8))
        self.present = np.zeros((*chunks, len(book.words)), bool) if present is None else present

    def codes(self, box: Box) -> NDArray[np.uint8]:
        """The codeword numbers on a box, perhaps read only."""
        under = box.to_chunks(self.chunk)
        numbers = np.unique(self.layers.of_chunk[under.slices])
        names = ("", *self.layers.lost)
        arrays = {number: self._layer(names[number]) for number in numbers.tolist()}
        if len(arrays) == 1:
            (array,) = arrays.values()
            return np.asarray(array[box])
        out = np.empty(box.shape, np.uint8)
        for chunk in under.of_chunks(self.chunk).tiles(self.chunk):
            part = chunk.intersect(box)
            out[part.relative_to(box).slices] = arrays[int(self.layers.of_chunk[self._number(chunk)])][part]
        return out

    def write(self, block: Box, codes: NDArray[np.uint8], lost: str = "") -> None:
        """Write a chunk as it was decided, or as it is without the voxels that a class lost."""
        self._layer(lost)[block] = codes

    def lose(self, name: str, chunks: Sequence[Box]) -> None:
        """From now on read these chunks as they are without what a class lost."""
        self.layers = self.layers.after(name, [self._number(chunk) for chunk in chunks])

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
        codes = self.codes(box)
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
