"""From a recipe, the targets and the models' cards to the work to be done: pure, nothing runs or is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ensemble.core import Box, Grid, LevelFit, Target, VoxelsZYX, fitting_level, nm_zyx, zyx
from ensemble.plan.job import (
    Job,
    Model,
)
from ensemble.plan.recipe import (
    EmptySource,
    Expression,
    MixedSource,
    ModelSource,
    NamedSource,
    OfClasses,
    Recipe,
    Route,
)
from ensemble.plan.windows import Windowing
from ensemble.support import RecipeError, in_threads, nearest

_CROPS_AT_ONCE = 16
"""Over a network each waits, a dozen times, for what is known of its EM."""


class Geometry(Protocol):
    """What must be known of a dataset's EM: its levels' grids, and how far its tissue reaches."""

    def levels(self, dataset: str) -> Sequence[Grid]: ...

    def tissue_box(self, dataset: str, level: int, core: Box, wanted: Box) -> Box: ...


@dataclass(frozen=True)
class CropPlan:
    """All that is done for one crop.

    ``routes`` cover its classes and those they are made of or seeded from, in the recipe's order.
    """

    target: Target
    routes: dict[str, Route]
    claimed: tuple[str, ...]
    jobs: tuple[Job, ...]

    @property
    def unclaimed(self) -> tuple[str, ...]:
        return tuple(name for name in self.target.classes if name not in self.claimed)


@dataclass(frozen=True)
class Plan:
    """The whole build; ``left_out`` arrays of the manifest were not asked for."""

    recipe: Recipe
    models: Mapping[str, Model]
    crops: tuple[CropPlan, ...]
    left_out: int = 0

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for crop in self.crops for job in crop.jobs)


def make_plan(recipe: Recipe, targets: Sequence[Target], models: Mapping[str, Model], geometry: Geometry) -> Plan:
    """The plan of a build. ``models`` are the resolved model sources by name.

    Raises RecipeError for a class without a route, or routed to a model that does not predict it.
    """
    crops = in_threads(_CROPS_AT_ONCE, lambda target: _crop(recipe, target, models, geometry), targets)
    return Plan(recipe, dict(models), tuple(crops))


def sources_of(recipe: Recipe, target: Target) -> set[str]:
    """Names of the sources a crop's routes use."""
    return {source for _, source in _leaves(routes_of(recipe, target))}


def _crop(recipe: Recipe, target: Target, models: Mapping[str, Model], geometry: Geometry) -> CropPlan:
    routes = routes_of(recipe, target)
    wanted: dict[str, set[str]] = {}
    for name, source in _leaves(routes):
        if isinstance(recipe.sources[source], ModelSource):
            wanted.setdefault(source, set()).add(name)
    for source, names in wanted.items():
        _check_predicts(routes, source, names, models[source])
    jobs = []
    for source, names in wanted.items():
        order = tuple(c for c in models[source].card.classes if c is not None and c in names)
        jobs.append(_job(source, models[source], target, order, geometry, recipe))
    claimed = tuple(name for name in target.classes if not isinstance(routes[name].source, EmptySource))
    return CropPlan(target, routes, claimed, tuple(jobs))


def _check_predicts(routes: Mapping[str, Route], source: str, names: set[str], model: Model) -> None:
    predicted = [c for c in model.card.classes if c is not None]
    lacking = sorted(names - set(predicted))
    if lacking:
        raise RecipeError(
            f"{routes[lacking[0]].place}: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} routed to "
            f"{source}, which predicts only {', '.join(predicted)}; name another source, or list under `empty` "
            f"what nobody predicts{nearest(lacking[0], predicted)}"
        )


def routes_of(recipe: Recipe, target: Target) -> dict[str, Route]:
    """Routes of the scored classes and of the classes they are made of, or take seeds from."""
    routes: dict[str, Route] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            loop = " → ".join((*above[above.index(name) :], name))
            raise RecipeError(f"{routes[name].place}: these classes are made of each other: {loop}; break the circle")
        if name in routes:
            return
        routes[name] = route = recipe.route(name, target)
        for member in classes_in(route.source):
            visit(member, (*above, name))
        for step in route.steps:
            seeds = step.seeds_from
            if seeds is not None and seeds not in (*above, name):
                visit(seeds, ())

    for name in target.classes:
        visit(name, ())
    listed = list(recipe.rules)
    return dict(sorted(routes.items(), key=lambda item: listed.index(item[0]) if item[0] in listed else len(listed)))


def classes_in(expression: Expression) -> tuple[str, ...]:
    """Classes that an expression is made of."""
    if isinstance(expression, OfClasses):
        return expression.classes
    if isinstance(expression, MixedSource):
        return tuple(name for part, _ in expression.parts for name in classes_in(part))
    return ()


def sources_in(expression: Expression) -> tuple[str, ...]:
    """Sources that an expression names itself."""
    if isinstance(expression, NamedSource):
        return (expression.name,)
    if isinstance(expression, MixedSource):
        return tuple(name for part, _ in expression.parts for name in sources_in(part))
    return ()


def made_from(routes: Mapping[str, Route], names: Sequence[str]) -> tuple[str, ...]:
    """The classes, and all that their probabilities, and the seeds of their objects, come from."""
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += classes_in(routes[name].source)
            waiting += [s for step in routes[name].steps if (s := step.seeds_from) is not None]
    return tuple(found)


def _leaves(routes: Mapping[str, Route]) -> list[tuple[str, str]]:
    """Every (class, source) that must be read."""
    return [(name, source) for name, route in routes.items() for source in sources_in(route.source)]


def _job(
    source: str, model: Model, target: Target, classes: tuple[str, ...], geometry: Geometry, recipe: Recipe
) -> Job:
    card, spec = model.card, recipe.sources[source]
    assert isinstance(spec, ModelSource)
    levels = geometry.levels(target.dataset)
    fit = fitting_level(levels, card.voxel_size_nm)
    level = levels[fit.level]
    frame = level if fit.exact else target.grid.covering(card.voxel_size_nm)
    if spec.tta == "octahedral" and (len(set(card.patch_voxels)) > 1 or len(set(frame.voxel_size_nm)) > 1):
        raise RecipeError(
            f"{recipe.source_places[source]}: octahedral augmentation turns patches by 90 degrees, which needs "
            f"cubic patches and voxels, not {card.patch_voxels} and {frame.voxel_size_nm}; use mirror"
        )
    crop, windowing = frame.box_over(target.grid), Windowing.of(spec, card)
    box, there = _tissue(target, fit, frame, level, windowing.looked_at(crop), geometry)
    windows = windowing.over(crop, _neighbours(frame, target.grid), there)
    lattice, needed = frame.sub(windows.region), windows.core.relative_to(windows.region)
    return Job(
        source=source,
        model=model,
        tta=spec.tta,
        crop=target.crop,
        dataset=target.dataset,
        fit=fit,
        level_grid=level,
        tissue_box=box,
        lattice=lattice,
        needed=needed,
        stored=_coarser(lattice.sub(needed), target.grid),
        starts=windows.starts,
        classes=classes,
        context_patches=windows.for_context,
    )


def _neighbours(frame: Grid, target: Grid) -> VoxelsZYX:
    """How many voxels around a crop its own are interpolated from: none where they are the network's."""
    places = [frame.position_voxels(axis, target.origin_nm[axis]) for axis in range(3)]
    sizes = zip(frame.voxel_size_nm, target.voxel_size_nm, strict=True)
    return zyx(
        int(mine != theirs or abs(at - round(at)) > 1e-6) for (mine, theirs), at in zip(sizes, places, strict=True)
    )


def _tissue(
    target: Target, fit: LevelFit, frame: Grid, level: Grid, wanted: Box, geometry: Geometry
) -> tuple[Box, Box]:
    """How far tissue reaches: in voxels of the level, and in whole voxels of the frame."""
    if fit.exact:
        box = geometry.tissue_box(target.dataset, fit.level, frame.box_over(target.grid), wanted)
        return box, box
    around = level.box_over(frame.sub(wanted))
    box = geometry.tissue_box(target.dataset, fit.level, level.box_over(target.grid), around)
    extent = level.sub(box)
    start = [math.ceil(frame.position_voxels(a, extent.corner_nm[a]) + 0.5 - 1e-6) for a in range(3)]
    stop = [math.floor(frame.position_voxels(a, extent.end_nm[a]) + 0.5 + 1e-6) for a in range(3)]
    return box, Box(zyx(start), zyx(max(pair) for pair in zip(start, stop, strict=True)))


def _coarser(network: Grid, target: Grid) -> Grid:
    """Along each axis the coarser of the two."""
    axes = [network if network.voxel_size_nm[a] >= target.voxel_size_nm[a] else target for a in range(3)]
    return Grid(
        zyx(grid.shape[a] for a, grid in enumerate(axes)),
        nm_zyx(grid.voxel_size_nm[a] for a, grid in enumerate(axes)),
        nm_zyx(grid.origin_nm[a] for a, grid in enumerate(axes)),
    )
