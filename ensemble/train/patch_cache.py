"""Blocks of annotated crops kept in memory, and patches read from them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import product
from threading import Lock

import numpy as np

from ensemble.core.box import Slices
from ensemble.train.crops import (
    CACHE_BYTES,
    AnnotatedCrop,
    Patch,
)


class BlockCache:
    """Values by key, the last used ones up to ``budget_bytes``; may be used by several threads."""

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget = budget_bytes
        self._kept: OrderedDict[Hashable, tuple[tuple[np.ndarray, ...], int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
        """What is kept under ``key``, else what ``make`` returns, which is then kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        arrays = make()
        size = sum(a.itemsize if 0 in a.strides else a.nbytes for a in arrays)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = arrays, size
                self._bytes += size
            while self._bytes > self._budget:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return arrays


class PatchReader:
    """Patches of crops, through a cache of blocks."""

    def __init__(self, crops: Sequence[AnnotatedCrop], budget_bytes: int = CACHE_BYTES) -> None:
        self.crops = tuple(crops)
        self._blocks = [crop.block_voxels() for crop in self.crops]
        self._cache = BlockCache(budget_bytes)

    def patch(self, index: int, box: Slices) -> Patch:
        """The box of crop ``index``, whose bounds may lie outside the lattice.

        Beyond what is annotated, codes are UNKNOWN; beyond the EM, its nearest part is mirrored.
        """
        crop = self.crops[index]
        shape = tuple(s.stop - s.start for s in box)
        grey = np.empty(shape, np.float32)
        codes = np.empty((len(crop.truths), *shape), np.uint8)
        for block in self._blocks_over(index, box):
            key = (index, *((s.start, s.stop) for s in block))
            block_grey, *block_codes = self._cache.get(key, lambda block=block: (crop.grey(block), *crop.codes(block)))
            there, here = _overlap(block, box)
            grey[here] = block_grey[there]
            for channel, values in zip(codes, block_codes, strict=True):
                channel[here] = values[there]
        return Patch(grey, codes)

    def _blocks_over(self, index: int, box: Slices) -> Iterator[Slices]:
        """The blocks that touch a box, cut to what patches of the crop can reach."""
        edges, shape = self._blocks[index], self.crops[index].grid.shape
        ranges = [range(s.start // e, -(-s.stop // e)) for s, e in zip(box, edges, strict=True)]
        for number in product(*ranges):
            block = []
            for i, e, s, n in zip(number, edges, box, shape, strict=True):
                reach = max(0, s.stop - s.start - n)
                block.append(slice(max(i * e, -reach), min((i + 1) * e, n + reach)))
            yield tuple(block)


def _overlap(block: Slices, box: Slices) -> tuple[Slices, Slices]:
    """What a block and a box share, as indices into the one and into the other."""
    bounds = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(block, box, strict=True)]
    there = tuple(slice(low - a.start, high - a.start) for (low, high), a in zip(bounds, block, strict=True))
    here = tuple(slice(low - b.start, high - b.start) for (low, high), b in zip(bounds, box, strict=True))
    return there, here
