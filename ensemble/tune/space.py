"""What tuning may choose for a class: where its probability comes from, its threshold, how objects are told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ensemble.core import is_instance
from ensemble.methods import METHODS, MOST_NM3, Fraction, LengthNm, Stage, Step
from ensemble.plan import TTA, Expression, MixedSource, ModelSource, NamedSource, Route, Source, sources_in

ObjectDecoding = Literal["components", "watershed"]
PLAIN_THRESHOLD = 0.5
CURVE = tuple(k / 256 for k in range(1, 256))
"""Thresholds of a curve that one pass over the voxels gives."""
COARSE = tuple(k / 20 for k in range(2, 19))
"""Thresholds where each costs labelling and scoring objects."""
_DISTANCES_VOXELS = (4, 8, 16, 32, 64)
_SIZES_VOXELS = (8, 64, 512, 4096, 32768)
_PAIR_WEIGHTS = ((1, 1), (3, 1), (1, 3))
MAX_PAIRED = 4
"""Sources of which pairs are tried; of more, only each alone and all together."""


class Narrowed(BaseModel):
    """What a recipe's ``tune`` says of a class; what it does not say is searched.

    ``fixed`` leaves the class as it is. ``threshold`` is a value or a range; ``tta`` false leaves augmentation out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fixed: bool = False
    sources: list[str] | None = None
    threshold: Fraction | tuple[Fraction, Fraction] | None = None
    objects: list[ObjectDecoding] | None = None
    min_distance_nm: list[LengthNm] | None = None
    min_size_nm3: list[Annotated[float, Field(ge=0, le=MOST_NM3)]] | None = None
    tta: bool = True

    @field_validator("threshold")
    @classmethod
    def _in_order(cls, threshold: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
        if isinstance(threshold, tuple) and not threshold[0] < threshold[1]:
            raise ValueError(f"{list(threshold)} is no range; write the lower end first")
        return threshold

    def allows(self, threshold: float) -> bool:
        """Whether a threshold may be tried."""
        if self.threshold is None:
            return True
        low, high = self.threshold if isinstance(self.threshold, tuple) else (self.threshold, self.threshold)
        return low <= threshold <= high

    def thresholds(self, known: Sequence[float]) -> tuple[float, ...]:
        """Those of ``known`` that are allowed, ascending."""
        ends = (
            () if self.threshold is None else self.threshold if isinstance(self.threshold, tuple) else (self.threshold,)
        )
        return tuple(t for t in known if self.allows(t)) or tuple(ends)


@dataclass(frozen=True)
class Space:
    """The routes of one class that may be tried: ``base`` with its parts exchanged."""

    base: Route
    sources: tuple[Expression, ...]
    thresholds: tuple[float, ...]
    objects: tuple[ObjectDecoding, ...] = ()
    min_distances_nm: tuple[float, ...] = ()
    min_sizes_nm3: tuple[float, ...] = ()

    @property
    def by_curve(self) -> bool:
        """Whether the mask is all that counts, and nothing but p > threshold makes it."""
        return not self.objects and not self.base.of_stage(Stage.FILL, Stage.FILTER)

    def route(
        self,
        source: Expression,
        threshold: float,
        objects: ObjectDecoding | None = None,
        min_distance_nm: float = 0.0,
        min_size_nm3: float = 0.0,
    ) -> Route:
        """The route with these parts; every other step of the base stays."""
        return replace(
            self.base,
            source=source,
            threshold=threshold,
            steps=_steps(self.base.steps, objects, min_distance_nm, min_size_nm3) if self.objects else self.base.steps,
        )


def _steps(
    steps: Sequence[Step], objects: ObjectDecoding | None, min_distance_nm: float, min_size_nm3: float
) -> tuple[Step, ...]:
    kept = [s for s in steps if s.method.stage is not Stage.LABEL and s.method.name != "drop_small"]
    # what judges connected components comes before they are cut
    first = [s for s in kept if s.method.stage is not Stage.FILTER or s.method.traits.needs_probability]
    last = [s for s in kept if s not in first]
    label = _step("components") if objects == "components" else _step("watershed", min_distance_nm=min_distance_nm)
    small = [_step("drop_small", min_size_nm3=min_size_nm3)] if min_size_nm3 else []
    return (*first, label, *small, *last)


def _step(name: str, **parameters: float) -> Step:
    """A post-processing step by its name and parameters."""
    method = METHODS.by_name[name]
    return Step(method, method.parameters.model_validate(parameters).model_dump())


def space_of_class(
    name: str, base: Route, candidates: Sequence[str], augmented: frozenset[str], voxel_nm: float, narrowed: Narrowed
) -> Space:
    """The space of a class whose probability ``candidates`` hold; ``augmented`` of them are run with augmentation.

    ``candidates`` are those that ``narrowed`` allows. ``voxel_nm`` is the edge of the target's voxels, from which
    distances and sizes are taken.
    """
    if narrowed.fixed:
        return Space(base, (base.source,), (base.threshold,))
    free = isinstance(base.source, NamedSource | MixedSource)
    sources = _sources(base.source, candidates, augmented) if free else (base.source,)
    if not is_instance(name):
        plain = base.of_stage(Stage.FILL, Stage.FILTER)
        return Space(base, sources, _with(base.threshold, narrowed.thresholds(COARSE if plain else CURVE), narrowed))
    return Space(
        base,
        sources,
        _with(base.threshold, narrowed.thresholds(COARSE), narrowed),
        tuple(narrowed.objects or ("components", "watershed")),
        tuple(narrowed.min_distance_nm or (n * voxel_nm for n in _DISTANCES_VOXELS)),
        tuple(narrowed.min_size_nm3 or (0.0, *(n * voxel_nm**3 for n in _SIZES_VOXELS))),
    )


def _with(current: float, known: Sequence[float], narrowed: Narrowed) -> tuple[float, ...]:
    return tuple(known) if narrowed.threshold is not None else tuple(sorted({*known, current, PLAIN_THRESHOLD}))


def _sources(base: Expression, names: Sequence[str], augmented: frozenset[str]) -> tuple[Expression, ...]:
    """Each source alone, pairs of few in three proportions, all together, and what the recipe says."""
    sources: dict[Expression, None] = dict.fromkeys([base, *(NamedSource(n) for n in names)])
    for group in ([n for n in names if n not in augmented], [n for n in names if n in augmented]):
        if len(group) <= MAX_PAIRED:
            for pair in combinations(group, 2):
                sources.update(dict.fromkeys(_mean(pair, weights) for weights in _PAIR_WEIGHTS))
        if len(group) > 2:
            sources[_mean(group, [1] * len(group))] = None
    return tuple(sources)


def _mean(names: Sequence[str], weights: Sequence[float]) -> MixedSource:
    return MixedSource("mean", tuple((NamedSource(n), float(w)) for n, w in zip(names, weights, strict=True)))


def complexity(route: Route, augmented: frozenset[str]) -> tuple[int, int, int, int]:
    """Smaller is simpler: models, watershed, augmentation, a threshold other than one half, in that order."""
    used = set(sources_in(route.source))
    watershed = any(s.method.name == "watershed" for s in route.steps)
    return (len(used), int(watershed), int(bool(used & augmented)), int(route.threshold != PLAIN_THRESHOLD))


def twins(sources: Mapping[str, Source], names: Sequence[str]) -> dict[str, tuple[str, ModelSource]]:
    """For each of these model sources the same with mirror augmentation, or without: name -> (its twin, itself)."""
    made: dict[str, tuple[str, ModelSource]] = {}
    for name in names:
        spec = sources[name]
        if isinstance(spec, ModelSource):
            other: TTA = "mirror" if spec.tta == "none" else "none"
            twin = f"{name}_{'mirrored' if other == 'mirror' else 'plain'}"
            if twin not in sources:
                made[twin] = (name, replace(spec, tta=other))
    return made
