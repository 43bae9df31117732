"""Objects of a crop as a table: a row each."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ObjectTable:
    """What is known of n objects without looking at their voxels.

    Arrays of length n: ``size_voxels`` int64, ``start`` and ``stop`` (n, 3) bounding boxes in voxels,
    ``touches_border`` of the crop, ``peak_probability`` (-inf where no step of the chain asks for it).
    """

    size_voxels: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    touches_border: np.ndarray
    peak_probability: np.ndarray
    voxel_volume_nm3: float

    def __len__(self) -> int:
        return len(self.size_voxels)

    def where(self, chosen: np.ndarray) -> "ObjectTable":
        """Some of them, by number or as bool (n,)."""
        columns = (self.size_voxels, self.start, self.stop, self.touches_border, self.peak_probability)
        return ObjectTable(*(column[chosen] for column in columns), self.voxel_volume_nm3)
