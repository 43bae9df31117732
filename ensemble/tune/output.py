"""The tuned recipe as a person reads it and the builder runs it; and the same choices as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble.plan import (
    ModelSource,
    OfClasses,
    Recipe,
    Route,
    describe_route,
    expression_as_recipe,
    model_source_as_recipe,
    route_in_words,
    sources_in,
    step_as_recipe,
)
from ensemble.support import dump_yaml
from ensemble.tune.folds import TuningUnit
from ensemble.tune.selection import Chosen


@dataclass(frozen=True)
class TuningResult:
    """One class's choice, and what it scores officially on the tuning crops before and after."""

    unit: TuningUnit
    chosen: Chosen
    official_before: float | None
    official_after: float | None
    could_gain: float | None


def recipe_text(
    recipe: Recipe,
    raw: Mapping[str, Any],
    results: Sequence[TuningResult],
    extra: Mapping[str, ModelSource],
    consistency: str,
) -> str:
    """The recipe, whose file says ``raw``, with what was chosen, and a comment above each class looked at."""
    data = dict(raw)
    data["name"] = f"{recipe.name.removesuffix('-tuned')}-tuned"
    used = {name for result in results for name in sources_in(result.chosen.route.source)}
    added = {name: model_source_as_recipe(spec) for name, spec in extra.items() if name in used}
    data["sources"] = {**(data.get("sources") or {}), **added}
    classes = {name: dict(entry or {}) for name, entry in (data.get("classes") or {}).items()}
    by_class: dict[str, list[TuningResult]] = {}
    for result in results:
        by_class.setdefault(result.unit.name, []).append(result)
    for name, found in by_class.items():
        if any(result.chosen.changed for result in found):
            classes[name] = _entry(recipe, name, classes.get(name, {}), found)
    data.pop("classes", None)
    head = dump_yaml({key: value for key, value in data.items() if key not in ("tune", "consistency")})
    lines = [head.rstrip("\n"), "classes:" if classes else ""]
    for name, entry in classes.items():
        lines += [f"  # {text}" for result in by_class.get(name, ()) for text in comments(result)]
        lines += [f"  {line}" for line in dump_yaml({name: entry}).rstrip("\n").splitlines()]
    lines.append(f"consistency: {consistency}")
    if "tune" in data:
        lines.append(dump_yaml({"tune": data["tune"]}).rstrip("\n"))
    return "\n".join(line for line in lines if line) + "\n"


def comments(result: TuningResult) -> list[str]:
    """What was chosen and why, in a line or two."""
    chosen = result.chosen
    official = ""
    if result.official_before is not None and result.official_after is not None:
        official = f"official score of the class {result.official_before:.4f} -> {result.official_after:.4f}; "
    held = "" if chosen.held_out is None else f", held out {chosen.held_out:.4f}"
    said = [
        f"{result.unit.label}: {official}alone by folds {chosen.before:.4f} -> {chosen.after:.4f}{held};"
        f" {'changed' if chosen.changed else 'kept'}: {chosen.why}"
    ]
    if chosen.next_best is not None:
        route, score = chosen.next_best
        said.append(f"next best: {score:.4f} with {route_in_words(route)}")
    return said


def _entry(recipe: Recipe, name: str, entry: dict[str, Any], found: Sequence[TuningResult]) -> dict[str, Any]:
    """The class's entry, everything said where it holds, so that nothing is inherited from what changed."""
    routes = {result.unit.when: result.chosen.route for result in found}
    rule = recipe.rule(name)
    main = routes.get(None, rule.route)
    made = _keys(main) if main is not None else {}
    conditions = ("voxel_size_nm", "dataset", "crop")
    when = [
        {**{key: raw[key] for key in conditions if key in raw}, **_keys(routes.get(index, rule.when[index][1]))}
        for index, raw in enumerate(entry.get("when", []))
    ]
    return {**made, **({"when": when} if when else {})}


def _keys(route: Route) -> dict[str, Any]:
    said = {"source": expression_as_recipe(route.source), "threshold": route.threshold}
    # All of it, so that nothing is taken from the defaults; a class made of others has no evidence of its own.
    said["weight"] = 0 if isinstance(route.source, OfClasses) else route.weight
    said["resampling"] = route.resampling
    said["postprocess"] = [step_as_recipe(step) for step in route.steps]
    return said


def results_as_json(
    results: Sequence[TuningResult], overall: Mapping[str, float], leaks: Mapping[str, Sequence[str]]
) -> str:
    """``classes``: by class the choice, its scores and the next best; ``overall`` before and after; ``trained_on``."""
    said = {
        "overall": dict(overall),
        "trained_on": {crop: list(names) for crop, names in leaks.items()},
        "classes": {
            result.unit.label: {
                "class": result.unit.name,
                "crops": list(result.unit.crops),
                "route": describe_route(result.chosen.route),
                "changed": result.chosen.changed,
                "why": result.chosen.why,
                "folds_before": result.chosen.before,
                "folds_after": result.chosen.after,
                "held_out": result.chosen.held_out,
                "official_before": result.official_before,
                "official_after": result.official_after,
                "overall_gain_if_perfect": result.could_gain,
                "next_best": None
                if result.chosen.next_best is None
                else {
                    "route": describe_route(result.chosen.next_best[0]),
                    "score": result.chosen.next_best[1],
                },
            }
            for result in results
        },
    }
    return json.dumps(said, indent=1) + "\n"
