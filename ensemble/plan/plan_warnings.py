"""What a person should know of a plan before hours go into it: a line each, naming the place and what to do."""

from collections.abc import Iterator, Mapping, Sequence

from ensemble.core import Target, official_manifest
from ensemble.plan.job import Model
from ensemble.plan.plan import Plan, routes_of, sources_of
from ensemble.plan.recipe import EmptySource, Recipe
from ensemble.storage import EM
from ensemble.support import RecipeError, nearest

LIKELY_VOXEL_NM = (0.5, 500.0)
"""Voxels of electron microscopy, with room on both sides; beyond them a card's unit is not nm."""


MISSPELT = 0.85
"""So alike are names of which one is a slip of the pen; those of other data sets of one series are less."""


def check_datasets(recipe: Recipe, manifest: Sequence[Target]) -> None:
    """Raise RecipeError for a condition on a data set that the manifest calls nearly so."""
    known = {target.dataset for target in manifest}
    official = {target.dataset for target in official_manifest()}
    for rule in recipe.rules.values():
        for condition, _ in rule.when:
            hint = nearest(condition.dataset, known, likeness=MISSPELT)
            if hint and condition.dataset not in official and not any(map(condition.fits_dataset, known)):
                raise RecipeError(f"{condition.place}: the manifest has no data set {condition.dataset!r}{hint}")


def plan_warnings(plan: Plan, manifest: Sequence[Target], em: EM) -> tuple[str, ...]:
    """Of the recipe against the whole ``manifest``, of the models' cards, and of the EM under the plan's crops."""
    lines = (*_unused(plan.recipe, manifest), *_odd_voxels(plan.models), *_missing_em(plan, em))
    return tuple(dict.fromkeys(lines))


def _unused(recipe: Recipe, manifest: Sequence[Target]) -> Iterator[str]:
    """Conditions, classes and sources that make no difference to any crop of the manifest."""
    crops: dict[str, list[Target]] = {}
    sources: set[str] = set()
    for target in manifest:
        try:
            routes = routes_of(recipe, target)
        except RecipeError:  # a crop that is not asked for may lack routes; one that is has been planned
            continue
        sources |= sources_of(recipe, target)
        for name in routes:
            crops.setdefault(name, []).append(target)
    for name in (name for name in recipe.rules if name in crops):
        yield from _idle_entries(recipe, name, crops[name], manifest)
    idle = [name for name in recipe.rules if name not in crops and not _is_empty(recipe, name)]
    if idle:
        yield f"{recipe.path}: no crop of the manifest is scored on {_listed(idle)}"
    for source in (source for source in recipe.sources if source not in sources):
        yield f"{recipe.source_places[source]}: nothing uses the source {source}"


def _idle_entries(recipe: Recipe, name: str, made_in: Sequence[Target], manifest: Sequence[Target]) -> Iterator[str]:
    """Entries of a class's ``when`` that none of the crops takes in which the class is made."""
    taken = {recipe.entry(name, target) for target in made_in}
    for index, (condition, _) in enumerate(recipe.rules[name].when):
        if index in taken:
            continue
        why = "it never holds"
        if any(map(condition.holds, made_in)):
            why = "an entry before it holds first"
        elif any(map(condition.holds, manifest)):
            why = f"where it holds, {name} is not scored"
        yield f"{condition.place}: no crop of the manifest takes this for {name}: {why}"


def _is_empty(recipe: Recipe, name: str) -> bool:
    route = recipe.rules[name].route
    return route is not None and isinstance(route.source, EmptySource)


def _listed(names: Sequence[str]) -> str:
    shown = sorted(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more classes" if len(names) > len(shown) else "")


def _odd_voxels(models: Mapping[str, Model]) -> Iterator[str]:
    low, high = LIKELY_VOXEL_NM
    for model in models.values():
        sizes = model.card.voxel_size_nm
        if not all(low <= size <= high for size in sizes):
            said = "x".join(f"{size:g}" for size in sizes)
            yield f"models:/{model.name}/{model.version}: its card says voxels of {said} nm; is that its unit?"


def _missing_em(plan: Plan, em: EM) -> Iterator[str]:
    targets = {crop.target.crop: crop.target for crop in plan.crops}
    for job in plan.jobs:
        tissue = em.tissue(job.dataset, job.fit.level, job.tissue_box)
        for line in tissue.warnings(targets[job.crop].grid):
            yield f"crop {job.crop}: {line}"
