"""Objects of a crop as a table: a row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, zyx


@dataclass(frozen=True)
class ObjectTable:
    """What is known of n objects without looking at their voxels.

    Arrays of length n: ``size_voxels`` int64, ``start`` and ``stop`` (n, 3) bounding boxes in voxels,
    ``touches_border`` of the crop, ``peak_probability`` (-inf where no step of the chain asks for it).
    """

    size_voxels: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    touches_border: NDArray[np.bool_]
    peak_probability: NDArray[np.float32]
    voxel_volume_nm3: float

    def __len__(self) -> int:
        return len(self.size_voxels)

    def box(self, index: int) -> Box:
        """The box around one of them."""
        return Box(zyx(self.start[index]), zyx(self.stop[index]))

    def where(self, chosen: NDArray[Any]) -> "ObjectTable":
        """Some of them, by number or as bool (n,)."""
        return ObjectTable(
            self.size_voxels[chosen],
            self.start[chosen],
            self.stop[chosen],
            self.touches_border[chosen],
            self.peak_probability[chosen],
            self.voxel_volume_nm3,
        )

    @classmethod
    def joined(cls, tables: Sequence["ObjectTable"], voxel_volume_nm3: float) -> "ObjectTable":
        """The objects of several tables of one crop, in their order."""
        corners = np.zeros((0, 3), np.int64)
        none = cls(corners[:, 0], corners, corners, np.zeros(0, bool), np.zeros(0, np.float32), voxel_volume_nm3)
        every = [none, *tables]
        return cls(
            np.concatenate([table.size_voxels for table in every]),
            np.concatenate([table.start for table in every]),
            np.concatenate([table.stop for table in every]),
            np.concatenate([table.touches_border for table in every]),
            np.concatenate([table.peak_probability for table in every]),
            voxel_volume_nm3,
        )
