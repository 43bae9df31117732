"""The EM of a build's datasets: opened once, asked by the plan for its geometry and by inference for tissue."""

from collections import defaultdict
from collections.abc import Sequence
from threading import Lock
from typing import Any

from ensemble.core import Box, Grid
from ensemble.storage.addresses import Location
from ensemble.storage.chunk_cache import DEFAULT_EM_CACHE_BYTES, em_cache
from ensemble.storage.opening import Pyramid, open_em
from ensemble.storage.tissue import Tissue, find_tissue


class EM:
    """The pyramids under one data root. ``absent_is_zero``: chunks never written are black, not missing.

    Chunks that come from a URL are copied to a cache on this machine, of up to ``cache_bytes``.
    """

    def __init__(
        self, root: Location, *, absent_is_zero: bool = False, cache_bytes: int = DEFAULT_EM_CACHE_BYTES
    ) -> None:
        self.root = str(root)
        self._absent_is_zero = absent_is_zero
        self._cache = em_cache(cache_bytes)
        self._pyramids: dict[str, Pyramid] = {}
        self._opening: defaultdict[str, Lock] = defaultdict(Lock)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opening=defaultdict(Lock))

    def pyramid(self, dataset: str) -> Pyramid:
        """Raises VolumeError when the dataset's EM is not under the root."""
        with self._opening[dataset]:
            if dataset not in self._pyramids:
                self._pyramids[dataset] = open_em(self.root, dataset, self._cache)
            return self._pyramids[dataset]

    def levels(self, dataset: str) -> Sequence[Grid]:
        return [level.grid for level in self.pyramid(dataset).levels]

    def tissue_box(self, dataset: str, level: int, core: Box, wanted: Box) -> Box:
        volume = self.pyramid(dataset).levels[level]
        return find_tissue(volume, core, wanted, absent_is_zero=self._absent_is_zero).box

    def tissue(self, dataset: str, level: int, box: Box) -> Tissue:
        """The EM of a level as far as ``tissue_box`` said that it is there."""
        return Tissue(self.pyramid(dataset).levels[level], box, self._absent_is_zero)
