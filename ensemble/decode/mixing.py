"""A crop's probabilities as its recipe mixes them, on any block of the target's grid."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.grid import Grid
from ensemble.methods.method_table import Stage
from ensemble.methods.mixes import MIXES
from ensemble.plan.plan import CropPlan, classes_in, sources_in
from ensemble.plan.recipe import Expression, MixedSource, NamedSource, OfClasses

_ROUNDING = 1e-5
"""Relative; more than the float32 arithmetic of resampling and mixing is off by."""


class ProbabilityField(Protocol):
    """One class as one source has it; see ``sources``."""

    def over(self, block: Grid) -> Self:
        """The same over ``block``, held in memory."""
        ...

    def bytes_over(self, block: Grid) -> int:
        """What that takes."""
        ...

    def probability(self, block: Grid, method: str) -> np.ndarray: ...

    def bounds(self, block: Grid) -> tuple[float, float]:
        """Between what values all probabilities on ``block`` lie."""
        ...

    def ids(self, block: Grid) -> np.ndarray | None: ...


class LazyProbability(Protocol):
    def __getitem__(self, index: Any) -> Any: ...


class Probability:
    """The probability of every class of a crop on any block of its grid."""

    def __init__(self, crop: CropPlan, fields: Mapping[tuple[str, str], ProbabilityField]) -> None:
        self._crop = crop
        self._grid = crop.target.grid
        self._routes = crop.routes
        self._fields = fields
        self._filled: dict[str, LazyProbability] = {}

    def fill(self, name: str, holes: LazyProbability) -> None:
        """Raise the class where ``holes`` is nonzero, halfway from its threshold to 1."""
        self._filled[name] = holes

    def over(self, names: Sequence[str], block: Slices) -> "Probability":
        """The same for ``names`` over ``block``, with what their sources have there in memory."""
        wide = self._grid.sub(self._widened(block, self._farthest(names)))
        held = Probability(self._crop, {key: self._fields[key].over(wide) for key in self._leaves(names)})
        held._filled = self._filled
        return held

    def bytes_over(self, names: Sequence[str], block: Slices) -> int:
        """Memory that ``over`` takes."""
        wide = self._grid.sub(self._widened(block, self._farthest(names)))
        return sum(self._fields[key].bytes_over(wide) for key in self._leaves(names))

    def _leaves(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """The (class, source) that the classes are made of."""
        found: dict[tuple[str, str], None] = {}
        for name in names:
            source = self._routes[name].source
            found.update(dict.fromkeys((name, leaf) for leaf in sources_in(source)))
            found.update(dict.fromkeys(self._leaves(classes_in(source))))
        return list(found)

    def _farthest(self, names: Sequence[str]) -> list[int]:
        """How far beyond a block the classes' probabilities reach, in voxels."""
        reach = np.zeros(3, int)
        for name in names:
            below = self._farthest(classes_in(self._routes[name].source))
            reach = np.maximum(reach, np.add(self._reach(name), below))
        return reach.tolist()

    def _reach(self, name: str) -> list[int]:
        reach_nm = sum(step.trait("reach_nm") for step in self._routes[name].of_stage(Stage.PROBABILITY))
        return [int(np.ceil(reach_nm / v)) for v in self._grid.voxel_size_nm]

    def _widened(self, block: Slices, halo: Sequence[int]) -> Slices:
        return self._grid.clip(tuple(slice(s.start - h, s.stop + h) for s, h in zip(block, halo, strict=True)))

    def of(self, name: str, block: Slices) -> np.ndarray:
        """The class's mixed probability after its steps on probabilities, float32."""
        p = self.unfilled(name, block)
        if name in self._filled:
            holes = np.asarray(self._filled[name][block]) > 0
            p = np.where(holes, np.maximum(p, self._raised(name)), p)
        return p

    def _raised(self, name: str) -> np.float32:
        return np.float32((1 + self._routes[name].threshold) / 2)

    def unfilled(self, name: str, block: Slices) -> np.ndarray:
        steps = self._routes[name].of_stage(Stage.PROBABILITY)
        wide = self._widened(block, self._reach(name)) if steps else block
        p = self._mixed(self._routes[name].source, name, wide)
        for step in steps:
            p = step(p, self._grid.voxel_size_nm)
        return p[tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(block, wide, strict=True))]

    def _mixed(self, source: Expression, name: str, block: Slices) -> np.ndarray:
        if isinstance(source, NamedSource):
            method = self._routes[name].resampling
            return self._fields[name, source.name].probability(self._grid.sub(block), method)
        if isinstance(source, MixedSource):
            parts = [self._mixed(part, name, block) for part, _ in source.parts]
            return MIXES[source.how](parts, [weight for _, weight in source.parts]).astype(np.float32)
        if isinstance(source, OfClasses):
            parts = [self.unfilled(member, block) for member in source.classes]
            return np.maximum.reduce(parts) if source.how == "union" else np.minimum.reduce(parts)
        return np.zeros(self._grid.sub(block).shape, np.float32)

    def bounds(self, name: str, block: Slices) -> tuple[float, float]:
        """Between what values ``of`` lies; every step and mix stays within the range of what it is given."""
        low, high = self._unfilled_bounds(name, block)
        if name in self._filled:
            high = max(high, float(self._raised(name)))
        return low * (1 - _ROUNDING), high * (1 + _ROUNDING)

    def _unfilled_bounds(self, name: str, block: Slices) -> tuple[float, float]:
        steps = self._routes[name].of_stage(Stage.PROBABILITY)
        wide = self._widened(block, self._reach(name)) if steps else block
        return self._mixed_bounds(self._routes[name].source, name, wide)

    def _mixed_bounds(self, source: Expression, name: str, block: Slices) -> tuple[float, float]:
        if isinstance(source, NamedSource):
            return self._fields[name, source.name].bounds(self._grid.sub(block))
        if isinstance(source, MixedSource):
            bounds = [self._mixed_bounds(part, name, block) for part, _ in source.parts]
            parts = [np.array(pair, np.float32) for pair in bounds]
            # all mixes rise with each of their parts
            low, high = MIXES[source.how](parts, [weight for _, weight in source.parts])
            return float(low), float(high)
        if isinstance(source, OfClasses):
            bounds = [self._unfilled_bounds(member, block) for member in source.classes]
            pick = max if source.how == "union" else min
            return pick(low for low, _ in bounds), pick(high for _, high in bounds)
        return 0.0, 0.0

    def ids(self, name: str, block: Slices) -> np.ndarray | None:
        """Object ids of a class whose source is a label volume."""
        source = self._routes[name].source
        return self._fields[name, source.name].ids(self._grid.sub(block)) if isinstance(source, NamedSource) else None
