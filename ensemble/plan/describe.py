"""Routes as plain values, as a recipe says them, and in words."""

from dataclasses import fields
from typing import Any

from ensemble.core import Grid
from ensemble.methods import Step
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


def model_source_as_recipe(source: ModelSource) -> dict[str, Any]:
    """A model source as a recipe says it: what is as usual is left out."""
    usual = ModelSource(source.uri)
    others = {f.name: getattr(source, f.name) for f in fields(source) if f.name != "uri"}
    return {"model": source.uri, **{key: said for key, said in others.items() if said != getattr(usual, key)}}


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


def voxel_size_in_words(value: Grid) -> str:
    """A voxel size in nm: one number where it is isotropic."""
    sizes = [f"{v:g}" for v in value.voxel_size_nm]
    return sizes[0] if len(set(sizes)) == 1 else "x".join(sizes)
