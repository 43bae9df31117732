"""Blocks of annotated crops kept in memory, and patches read from them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

import numpy as np

from ensemble.core import Box
from ensemble.train.block_files import Arrays, BlockFiles
from ensemble.train.crops import AnnotatedCrop, Patch

CACHE_BYTES = 384 << 20


class BlockCache:
    """Values by key, the last used ones up to ``budget_bytes``."""

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget = budget_bytes
        self._kept: OrderedDict[Hashable, tuple[Arrays, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Arrays]) -> Arrays:
        """What is kept under ``key``, else what ``make`` returns, which is then kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        arrays = make()
        size = sum(a.itemsize if 0 in a.strides else a.nbytes for a in arrays)
        self._kept[key] = arrays, size
        self._bytes += size
        while self._bytes > self._budget:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return arrays


class PatchReader:
    """Patches of crops, through a cache of blocks; ``files`` are what several processes have in common."""

    def __init__(
        self, crops: Sequence[AnnotatedCrop], budget_bytes: int = CACHE_BYTES, files: BlockFiles | None = None
    ) -> None:
        self.crops = tuple(crops)
        self._files = files
        self._blocks = [crop.block_voxels() for crop in self.crops]
        self._cache = BlockCache(budget_bytes)

    def patch(self, index: int, box: Box) -> Patch:
        """The box of crop ``index``, whose bounds may lie outside the lattice.

        Beyond what is annotated, codes are UNKNOWN; beyond the EM, its nearest part is mirrored.
        """
        crop = self.crops[index]
        grey = np.empty(box.shape, crop.grey_dtype)
        codes = np.empty((len(crop.truths), *box.shape), np.uint8)
        for block in self._blocks_over(index, box):
            block_grey, *block_codes = self._cache.get((index, block), partial(self._made, index, block))
            both = block.intersect(box)
            there, here = both.relative_to(block).slices, both.relative_to(box).slices
            grey[here] = block_grey[there]
            for channel, values in zip(codes, block_codes, strict=True):
                channel[here] = values[there]
        return Patch(grey, codes)

    def _blocks_over(self, index: int, box: Box) -> Iterator[Box]:
        """The blocks that touch a box, cut to what patches of the crop can reach."""
        edges, reach = self._blocks[index], self.crops[index].reach(box.shape)
        for number in box.to_chunks(edges).indices():
            yield Box.at(number, (1, 1, 1)).of_chunks(edges).intersect(reach)

    def _made(self, index: int, block: Box) -> Arrays:
        computed = partial(_computed, self.crops[index], block)
        if self._files is None:
            return computed()
        return self._files.get(".".join(map(str, (index, *block.start, *block.shape))), computed)


def _computed(crop: AnnotatedCrop, block: Box) -> Arrays:
    return crop.grey(block), *crop.codes(block)
