"""Arrays (z, y, x) that are read and written by boxes."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ensemble.core.box import Box, VoxelsZYX


class BoxArray(Protocol):
    """An array on disk or in memory; boxes lie inside it."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, box: Box) -> NDArray[Any]: ...

    def __setitem__(self, box: Box, values: NDArray[Any]) -> None: ...


@dataclass(frozen=True)
class MemoryArray:
    """A NumPy array read and written by boxes."""

    values: NDArray[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @classmethod
    def zeros(cls, shape: VoxelsZYX, dtype: Any) -> "MemoryArray":
        return cls(np.zeros(shape, dtype))

    def __getitem__(self, box: Box) -> NDArray[Any]:
        return self.values[box.slices]

    def __setitem__(self, box: Box, values: NDArray[Any]) -> None:
        self.values[box.slices] = values
