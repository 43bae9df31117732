"""A crop's probabilities as its recipe mixes them, on any box of the target's grid."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, BoxArray, Grid, Interpolation, VoxelsZYX, zyx
from ensemble.methods import MIXES, Stage
from ensemble.plan import CropPlan, Expression, MixedSource, NamedSource, OfClasses, classes_in, sources_in

_ROUNDING = 1e-5
"""Relative; more than the float32 arithmetic of resampling and mixing is off by."""


Values = NDArray[np.float32]


class ProbabilityField(Protocol):
    """One class as one source has it, on the source's own grid."""

    def over(self, block: Grid) -> Self:
        """The same over ``block``, held in memory."""
        ...

    def bytes_over(self, block: Grid) -> int:
        """What that takes."""
        ...

    def highest(self) -> int | None:
        """The highest stored value in memory; None where what it stands for is known."""
        ...

    def probability(self, block: Grid, method: Interpolation) -> Values: ...

    def bounds(self, block: Grid) -> tuple[float, float]:
        """Between what values all probabilities on ``block`` lie."""
        ...

    def ids(self, block: Grid) -> NDArray[Any] | None: ...


class Probability:
    """The probability of every class of a crop on any box of its grid. ``fields``: by class and source."""

    def __init__(
        self,
        crop: CropPlan,
        fields: Mapping[tuple[str, str], ProbabilityField],
        filled: dict[str, BoxArray] | None = None,
    ) -> None:
        self._crop = crop
        self._grid = crop.target.grid
        self._routes = crop.routes
        self._fields = fields
        self._filled = {} if filled is None else filled

    def fill(self, name: str, holes: BoxArray) -> None:
        """Raise the class where ``holes`` is nonzero, halfway from its threshold to 1."""
        self._filled[name] = holes

    def over(self, names: Sequence[str], box: Box) -> "Probability":
        """The same for ``names`` over ``box``, with what their sources have there in memory."""
        wide = self._grid.sub(self._widened(box, self._farthest(names)))
        fields = {key: self._fields[key].over(wide) for key in self._leaves(names)}
        return Probability(self._crop, fields, self._filled)

    def highest(self) -> dict[str, int]:
        """The highest stored value of each "class source" of which it is only assumed what it stands for."""
        found = {f"{name} {source}": field.highest() for (name, source), field in self._fields.items()}
        return {key: value for key, value in found.items() if value is not None}

    def bytes_over(self, names: Sequence[str], box: Box) -> int:
        """Memory that ``over`` takes."""
        wide = self._grid.sub(self._widened(box, self._farthest(names)))
        return sum(self._fields[key].bytes_over(wide) for key in self._leaves(names))

    def _leaves(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """The (class, source) that the classes are made of."""
        leaves: dict[tuple[str, str], None] = {}
        for name in names:
            source = self._routes[name].source
            leaves.update(dict.fromkeys((name, leaf) for leaf in sources_in(source)))
            leaves.update(dict.fromkeys(self._leaves(classes_in(source))))
        return list(leaves)

    def _farthest(self, names: Sequence[str]) -> VoxelsZYX:
        """How far beyond a box the classes' probabilities reach."""
        reach = np.zeros(3, int)
        for name in names:
            below = self._farthest(classes_in(self._routes[name].source))
            reach = np.maximum(reach, np.add(self._reach(name), below))
        return zyx(reach)

    def _reach(self, name: str) -> VoxelsZYX:
        reach_nm = sum(step.reach_nm for step in self._routes[name].of_stage(Stage.PROBABILITY))
        return zyx(int(np.ceil(reach_nm / v)) for v in self._grid.voxel_size_nm)

    def _widened(self, box: Box, halo_voxels: VoxelsZYX) -> Box:
        return box.grown(halo_voxels).intersect(self._grid.box)

    def of(self, name: str, box: Box) -> Values:
        """The class's mixed probability after its steps on probabilities."""
        p = self.unfilled(name, box)
        if name in self._filled:
            holes = np.asarray(self._filled[name][box]) > 0
            p = np.where(holes, np.maximum(p, self._raised(name)), p)
        return p

    def _raised(self, name: str) -> np.float32:
        return np.float32((1 + self._routes[name].threshold) / 2)

    def unfilled(self, name: str, box: Box) -> Values:
        """The same before holes are filled."""
        steps = self._routes[name].of_stage(Stage.PROBABILITY)
        wide = self._widened(box, self._reach(name)) if steps else box
        p = self._mixed(self._routes[name].source, name, wide)
        for step in steps:
            p = step(p, self._grid.voxel_size_nm)
        return p[box.relative_to(wide).slices]

    def _mixed(self, source: Expression, name: str, box: Box) -> Values:
        if isinstance(source, NamedSource):
            method = self._routes[name].resampling
            return self._fields[name, source.name].probability(self._grid.sub(box), method)
        if isinstance(source, MixedSource):
            parts = [self._mixed(part, name, box) for part, _ in source.parts]
            return MIXES[source.how](parts, [weight for _, weight in source.parts]).astype(np.float32)
        if isinstance(source, OfClasses):
            members = [self.unfilled(member, box) for member in source.classes]
            combined: Values = (np.maximum if source.how == "union" else np.minimum).reduce(members)
            return combined
        return np.zeros(box.shape, np.float32)

    def bounds(self, name: str, box: Box) -> tuple[float, float]:
        """Between what values ``of`` lies; every step and mix stays within the range of what it is given."""
        low, high = self._unfilled_bounds(name, box)
        if name in self._filled:
            high = max(high, float(self._raised(name)))
        return low * (1 - _ROUNDING), high * (1 + _ROUNDING)

    def _unfilled_bounds(self, name: str, box: Box) -> tuple[float, float]:
        steps = self._routes[name].of_stage(Stage.PROBABILITY)
        wide = self._widened(box, self._reach(name)) if steps else box
        return self._mixed_bounds(self._routes[name].source, name, wide)

    def _mixed_bounds(self, source: Expression, name: str, box: Box) -> tuple[float, float]:
        if isinstance(source, NamedSource):
            return self._fields[name, source.name].bounds(self._grid.sub(box))
        if isinstance(source, MixedSource):
            bounds = [self._mixed_bounds(part, name, box) for part, _ in source.parts]
            parts = [np.array(pair, np.float32) for pair in bounds]
            # all mixes rise with each of their parts
            low, high = MIXES[source.how](parts, [weight for _, weight in source.parts])
            return float(low), float(high)
        if isinstance(source, OfClasses):
            bounds = [self._unfilled_bounds(member, box) for member in source.classes]
            pick: Callable[[Iterable[float]], float] = max if source.how == "union" else min
            return pick(low for low, _ in bounds), pick(high for _, high in bounds)
        return 0.0, 0.0

    def ids(self, name: str, box: Box) -> NDArray[Any] | None:
        """Object ids of a class whose source is a label volume."""
        source = self._routes[name].source
        return self._fields[name, source.name].ids(self._grid.sub(box)) if isinstance(source, NamedSource) else None
