"""From a recipe, the targets and the models' cards to the work to be done: pure, nothing runs or is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ensemble.core.box import Slices
from ensemble.core.grid import Grid, LevelFit, fitting_level
from ensemble.core.manifest import Target
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
from ensemble.support.errors import RecipeError, nearest


class Geometry(Protocol):
    """What must be known of a dataset's EM: its levels' grids, and how far its tissue reaches."""

    def levels(self, dataset: str) -> Sequence[Grid]: ...

    def tissue_box(self, dataset: str, level: int, core: Slices, wanted: Slices) -> Slices: ...


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
    """The whole build."""

    recipe: Recipe
    models: Mapping[str, Model]
    crops: tuple[CropPlan, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for crop in self.crops for job in crop.jobs)


def make_plan(recipe: Recipe, targets: Sequence[Target], models: Mapping[str, Model], geometry: Geometry) -> Plan:
    """The plan of a build. ``models`` are the resolved model sources by name.

    Raises RecipeError for a class without a route, or routed to a model that does not predict it.
    """
    return Plan(recipe, dict(models), tuple(_crop(recipe, target, models, geometry) for target in targets))


def sources_of(recipe: Recipe, target: Target) -> set[str]:
    """Names of the sources a crop's routes use."""
    return {source for _, source in _leaves(_routes(recipe, target))}


def _crop(recipe: Recipe, target: Target, models: Mapping[str, Model], geometry: Geometry) -> CropPlan:
    routes = _routes(recipe, target)
    wanted: dict[str, set[str]] = {}
    for name, source in _leaves(routes):
        if isinstance(recipe.sources[source], ModelSource):
            wanted.setdefault(source, set()).add(name)
    for source, names in wanted.items():
        _check_predicts(recipe, routes, source, names, models[source])
    jobs = []
    for source, names in wanted.items():
        order = [c for c in models[source].card.classes if c in names]
        jobs.append(_job(source, recipe.sources[source], models[source], target, tuple(order), geometry, recipe))
    claimed = tuple(name for name in target.classes if not isinstance(routes[name].source, EmptySource))
    return CropPlan(target, routes, claimed, tuple(jobs))


def _check_predicts(recipe: Recipe, routes: Mapping[str, Route], source: str, names: set[str], model: Model) -> None:
    predicted = [c for c in model.card.classes if c is not None]
    lacking = sorted(names - set(predicted))
    if lacking:
        raise RecipeError(
            f"{routes[lacking[0]].place}: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} routed to "
            f"{source}, which predicts only {', '.join(predicted)}; name another source, or list under `empty` "
            f"what nobody predicts{nearest(lacking[0], predicted)}"
        )


def _routes(recipe: Recipe, target: Target) -> dict[str, Route]:
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
            seeds = step.parameters.get("seeds_from")
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
            waiting += [s for step in routes[name].steps if (s := step.parameters.get("seeds_from")) is not None]
    return tuple(found)


def _leaves(routes: Mapping[str, Route]) -> list[tuple[str, str]]:
    """Every (class, source) that must be read."""
    return [(name, source) for name, route in routes.items() for source in sources_in(route.source)]


def _job(
    source: str,
    spec: ModelSource,
    model: Model,
    target: Target,
    classes: tuple[str, ...],
    geometry: Geometry,
    recipe: Recipe,
) -> Job:
    card = model.card
    levels = geometry.levels(target.dataset)
    fit = fitting_level(levels, card.voxel_size_nm)
    level = levels[fit.level]
    frame = level if fit.exact else target.grid.covering(card.voxel_size_nm)
    if spec.tta == "octahedral" and (len(set(card.patch_voxels)) > 1 or len(set(frame.voxel_size_nm)) > 1):
        raise RecipeError(
            f"{recipe.source_places[source]}: octahedral augmentation turns patches by 90 degrees, which needs "
            f"cubic patches and voxels, not {card.patch_voxels} and {frame.voxel_size_nm}; use mirror"
        )
    crop = frame.slices_over(target.grid)
    context = [1 + math.ceil(p * card.overlap / 2) for p in card.patch_voxels]
    wanted = tuple(slice(s.start - c, s.stop + c) for s, c in zip(crop, context, strict=True))
    box, there = _tissue(target, fit, frame, level, crop, wanted, geometry)
    core = _with_neighbours(crop, there)
    region = _region(core, wanted, there, card.patch_voxels)
    lattice = frame.sub(region)
    needed = tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(core, region, strict=True))
    return Job(
        source,
        model,
        spec.tta,
        target.crop,
        target.dataset,
        fit,
        level,
        box,
        lattice,
        needed,
        _coarser(lattice.sub(needed), target.grid),
        classes,
    )


def _tissue(
    target: Target, fit: LevelFit, frame: Grid, level: Grid, crop: Slices, wanted: Slices, geometry: Geometry
) -> tuple[Slices, Slices]:
    """How far tissue reaches: in voxels of the level, and in whole voxels of the frame."""
    if fit.exact:
        box = geometry.tissue_box(target.dataset, fit.level, crop, wanted)
        return box, box
    box = geometry.tissue_box(
        target.dataset, fit.level, level.slices_over(target.grid), level.slices_over(frame.sub(wanted))
    )
    extent = level.sub(box)
    there = tuple(
        slice(
            math.ceil(frame.position_voxels(a, extent.corner_nm[a]) + 0.5 - 1e-6),
            math.floor(frame.position_voxels(a, extent.end_nm[a]) + 0.5 + 1e-6),
        )
        for a in range(3)
    )
    return box, there


def _with_neighbours(crop: Slices, there: Slices) -> Slices:
    """The crop's voxels and one more on each side, to interpolate towards, where there is tissue."""
    return tuple(
        slice(min(c.start, max(c.start - 1, t.start)), max(c.stop, min(c.stop + 1, t.stop)))
        for c, t in zip(crop, there, strict=True)
    )


def _region(core: Slices, wanted: Slices, there: Slices, patch: Sequence[int]) -> Slices:
    """The voxels patches cover: core and context as far as there is tissue, and at least one patch."""
    region = []
    for c, w, t, p in zip(core, wanted, there, patch, strict=True):
        start = min(c.start, max(w.start, t.start))
        stop = max(c.stop, min(w.stop, t.stop))
        start, stop = _widened(start, stop, p, t)
        missing = max(p - (stop - start), 0)
        region.append(slice(start - missing // 2, stop + missing - missing // 2))
    return tuple(region)


def _widened(start: int, stop: int, length: int, there: slice) -> tuple[int, int]:
    """The bounds moved apart to ``length`` if they are nearer, as far as there is tissue."""
    missing = max(length - (stop - start), 0)
    room_before, room_after = max(start - there.start, 0), max(there.stop - stop, 0)
    before = min(room_before, max(missing // 2, missing - room_after))
    return start - before, stop + min(room_after, missing - before)


def _coarser(network: Grid, target: Grid) -> Grid:
    axes = [network if network.voxel_size_nm[a] >= target.voxel_size_nm[a] else target for a in range(3)]
    return Grid(
        tuple(g.shape[a] for a, g in enumerate(axes)),
        tuple(g.voxel_size_nm[a] for a, g in enumerate(axes)),
        tuple(g.origin_nm[a] for a, g in enumerate(axes)),
    )
