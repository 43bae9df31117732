"""A plan as plain values: what goes into keys, plan.json and the terminal."""

from collections.abc import Collection
from typing import Any

from ensemble.core.grid import Grid
from ensemble.methods.method_table import Step
from ensemble.plan.budget import Budget
from ensemble.plan.job import Job
from ensemble.plan.plan import CropPlan, Plan
from ensemble.plan.recipe import EmptySource, Expression, MixedSource, ModelSource, NamedSource, OfClasses, Route


def describe_route(value: Route) -> dict[str, Any]:
    """A route without its place in a file."""
    return {
        "source": describe_source(value.source),
        "threshold": value.threshold,
        "weight": value.weight,
        "resampling": value.resampling,
        "postprocess": [step.describe() for step in value.steps],
    }


def describe_source(expression: Expression) -> Any:
    """An expression as a recipe would say it."""
    if isinstance(expression, EmptySource):
        return "empty"
    if isinstance(expression, NamedSource):
        return expression.name
    if isinstance(expression, MixedSource):
        return {expression.how: [[describe_source(part), weight] for part, weight in expression.parts]}
    return {expression.how: list(expression.classes)}


def expression_as_recipe(expression: Expression) -> Any:
    """An expression as a recipe says it: weights by name, or a list of parts that all weigh the same."""
    if not isinstance(expression, MixedSource):
        return describe_source(expression)
    names = [expression_as_recipe(part) for part, _ in expression.parts]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        weights = (_whole(weight) for _, weight in expression.parts)
        return {expression.how: dict(zip(names, weights, strict=True))}
    return {expression.how: names}


def _whole(weight: float) -> float | int:
    return int(weight) if weight == int(weight) else weight


def step_as_recipe(step: Step) -> Any:
    """A step as a recipe says it."""
    ((name, said),) = step.describe().items()
    return {name: said} if said else name


def route_in_words(value: Route) -> str:
    """A route in a few words, for people."""
    weight = "" if value.weight == 1 else f", weight {value.weight}"
    steps = "".join(f", {_step_in_words(step)}" for step in value.steps)
    return f"{source_in_words(value.source)}, threshold {value.threshold:.4g}{weight}{steps}"


def source_in_words(expression: Expression) -> str:
    """An expression in a few words."""
    if isinstance(expression, MixedSource):
        parts = " + ".join(f"{weight:g} {source_in_words(part)}" for part, weight in expression.parts)
        return f"{expression.how} of {parts}"
    if isinstance(expression, OfClasses):
        return f"{expression.how} of {', '.join(expression.classes)}"
    return str(describe_source(expression))


def _step_in_words(step: Step) -> str:
    ((name, said),) = step.describe().items()
    numbers = (f"{key}={value:g}" for key, value in said.items() if isinstance(value, int | float))
    return " ".join([name, *numbers])


def describe_grid(value: Grid) -> dict[str, Any]:
    return {
        "shape": list(value.shape),
        "voxel_size_nm": list(value.voxel_size_nm),
        "origin_nm": list(value.origin_nm),
    }


def describe_job(value: Job, budget: Budget) -> dict[str, Any]:
    """One pass of a model over a crop, with what it costs."""
    em = "as it is" if value.fit.exact else "EM upsampled" if value.fit.upsampled else "EM downsampled"
    return {
        "source": value.source,
        "model": f"models:/{value.model.name}/{value.model.version}",
        "sha256": value.model.sha256,
        "tta": value.tta,
        "classes": list(value.classes),
        "em_voxel_size_nm": list(value.level_grid.voxel_size_nm),
        "em": em,
        "network_grid": describe_grid(value.lattice),
        "stored_grid": describe_grid(value.stored),
        "patches": value.patches,
        "forward_passes": value.forward_passes,
        "voxels": value.lattice.size,
        "stored_bytes": value.stored_bytes,
        "partial_sums_on_disk": budget.spills(value),
        "peak_memory_bytes": budget.predicting_bytes(value),
    }


def describe_crop(value: CropPlan, budget: Budget, named: Collection[str] = ()) -> dict[str, Any]:
    """One crop: how each of its classes is made, and the passes that takes; ``named`` have an entry of their own."""
    return {
        "dataset": value.target.dataset,
        "grid": describe_grid(value.target.grid),
        "classes": {
            name: {**describe_class(value, name), "fallback": name not in named} for name in value.target.classes
        },
        "jobs": [describe_job(one, budget) for one in value.jobs],
        "assembling_memory_bytes": budget.assembling_bytes(value),
        "bytes_uncompressed": value.target.grid.size * len(value.target.classes),
    }


def describe_class(value: CropPlan, name: str) -> dict[str, Any]:
    """How one class of a crop is made."""
    models = {
        one.source: {
            "model": f"models:/{one.model.name}/{one.model.version}",
            "resampled": f"{voxel_size_in_words(one.stored)} → {voxel_size_in_words(value.target.grid)} nm",
            "validation": one.model.card.validation.get(name),
            "truth_sizes_log2_nm3": one.model.card.truth_sizes_log2_nm3.get(name, {}),
            "voxel_size_nm": "x".join(f"{v:g}" for v in dict.fromkeys(one.model.card.voxel_size_nm)),
        }
        for one in value.jobs
        if name in one.classes
    }
    said = {"words": route_in_words(value.routes[name]), "claimed": name in value.claimed, "models": models}
    return {**describe_route(value.routes[name]), **said}


def voxel_size_in_words(value: Grid) -> str:
    """A voxel size in nm: one number where it is isotropic."""
    sizes = [f"{v:g}" for v in value.voxel_size_nm]
    return sizes[0] if len(set(sizes)) == 1 else "x".join(sizes)


def describe_plan(value: Plan, budget: Budget) -> dict[str, Any]:
    """The whole plan, with its cost in sum."""
    return {
        "recipe": value.recipe.name,
        "consistency": value.recipe.consistency,
        "sources": {
            name: {"uri": spec.uri, "tta": spec.tta, "version": value.models[name].version}
            for name, spec in value.recipe.sources.items()
            if isinstance(spec, ModelSource) and name in value.models
        },
        "crops": {one.target.crop: describe_crop(one, budget, value.recipe.rules) for one in value.crops},
        "cost": {
            "arrays": sum(len(one.target.classes) for one in value.crops),
            "voxels": sum(one.target.grid.size * len(one.target.classes) for one in value.crops),
            "patches": sum(one.patches for one in value.jobs),
            "forward_passes": sum(one.forward_passes for one in value.jobs),
            "stored_bytes": sum(one.stored_bytes for one in value.jobs),
            "peak_memory_bytes": budget.peak_bytes(value),
        },
    }
