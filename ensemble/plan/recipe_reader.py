"""Reading a recipe file into the values of ``recipe``; what cannot be meant is refused with file, line and key."""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ensemble.core import all_classes, is_instance
from ensemble.methods import LEAST_WEIGHT, METHODS, MIXES, MOST_WEIGHT, Stage, Step
from ensemble.plan.recipe import (
    Condition,
    EmptySource,
    Expression,
    MixedSource,
    NamedSource,
    OfClasses,
    Recipe,
    Route,
    Rule,
)
from ensemble.plan.recipe_schema import ClassEntry, RecipeFile, RouteEntry, WhenEntry
from ensemble.plan.source_reader import EMPTY, read_source
from ensemble.support import RecipeError, YamlKey, YamlLines, explain_invalid, load_yaml, suggestion, yaml_place


def find_recipe(name: str | Path) -> Path:
    """The recipe file of that path, else the one of that name among the recipes shipped."""
    path = Path(name)
    shipped = Path(str(files("recipes")))
    for candidate in (path, Path("recipes") / path, shipped / path, shipped / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    known = [p.name for p in shipped.glob("*.yaml")]
    raise RecipeError(f"{name}: there is no such recipe{suggestion(path.name, known)}")


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a file; RecipeError names file, line and key of the first thing that is wrong."""
    path = find_recipe(path)
    data, lines = load_yaml(path, RecipeError)
    try:
        raw = RecipeFile.model_validate(data)
    except ValidationError as invalid:
        raise RecipeError(explain_invalid(invalid, path, lines, model=RecipeFile)) from invalid
    return _Reader(path, lines, raw).recipe()


class _Reader:
    """Turns the shape of the file into values, knowing the line of everything."""

    def __init__(self, path: Path, lines: YamlLines, raw: RecipeFile) -> None:
        self.path, self.lines, self.raw = path, lines, raw

    def wrong(self, key: YamlKey, what: str) -> RecipeError:
        return RecipeError(f"{yaml_place(self.path, self.lines, key)}: {what}")

    def recipe(self) -> Recipe:
        known = all_classes()
        for name in self.raw.classes:
            if name not in known:
                raise self.wrong(("classes", name), f"unknown class {name!r}{suggestion(name, known)}")
        for name in self.raw.tune:
            if name != "consistency" and name not in known:
                raise self.wrong(("tune", name), f"unknown class {name!r}{suggestion(name, known)}")
        recipe = Recipe(
            name=self.raw.name,
            path=self.path,
            sources={name: read_source(name, source, self.wrong) for name, source in self.raw.sources.items()},
            source_places={n: yaml_place(self.path, self.lines, ("sources", n)) for n in self.raw.sources},
            rules={**{name: self._rule(name, rule) for name, rule in self.raw.classes.items()}, **self._empty()},
            fallback=lambda name: self._route(name, [(("defaults",), self.raw.defaults)]),
            consistency=self.raw.consistency,
            tune=dict(self.raw.tune),
        )
        recipe.fallback("ecs")  # a mistake in the defaults shows at once
        return recipe

    def _empty(self) -> dict[str, Rule]:
        """Rules of the classes that are listed as written with zeros."""
        rules = {}
        for index, name in enumerate(self.raw.empty):
            key = ("empty", index)
            if name not in all_classes():
                raise self.wrong(key, f"unknown class {name!r}{suggestion(name, all_classes())}")
            if name in self.raw.classes or name in rules:
                raise self.wrong(key, f"{name} is listed elsewhere too; keep one")
            place = yaml_place(self.path, self.lines, key)
            rules[name] = Rule(Route(EmptySource(), 0.5, 1.0, "linear", (), place))
        return rules

    def _rule(self, name: str, raw: ClassEntry) -> Rule:
        key = ("classes", name)
        layers: list[tuple[YamlKey, RouteEntry]] = [(key, raw), (("defaults",), self.raw.defaults)]
        when = []
        for index, entry in enumerate(raw.when):
            at = (*key, "when", index)
            route = self._route(name, [(at, entry), *layers])
            if route is None:
                raise self.wrong(at, "no source here, in the class or in the defaults; name one, or `empty`")
            when.append((self._condition(at, entry), route))
        return Rule(self._route(name, layers), tuple(when))

    def _condition(self, at: YamlKey, entry: WhenEntry) -> Condition:
        if not entry.model_fields_set & {"voxel_size_nm", "dataset", "crop"}:
            raise self.wrong(at, "says no condition; give voxel_size_nm, dataset or crop")
        if not re.fullmatch(r"[\w*?!\[\]-]+", entry.crop):
            raise self.wrong(
                (*at, "crop"), f"{entry.crop!r} is no crop's name; give each an entry, or a pattern: 55[78]"
            )
        place = yaml_place(self.path, self.lines, at)
        if entry.voxel_size_nm is None:
            return Condition(None, entry.dataset, entry.crop, place)
        match = re.fullmatch(r"\s*(>=|<=|==|>|<)\s*(\d{1,9}(?:\.\d{1,9})?)\s*", entry.voxel_size_nm)
        if match is None:
            raise self.wrong((*at, "voxel_size_nm"), f'{entry.voxel_size_nm!r} is not a comparison such as ">=16"')
        return Condition((match[1], float(match[2])), entry.dataset, entry.crop, place)

    def _route(self, name: str, layers: Sequence[tuple[YamlKey, RouteEntry]]) -> Route | None:
        """The route that the layers, most specific first, add up to; None without a source."""

        def entry(field: str, default: Any = None) -> tuple[YamlKey, Any]:
            for key, layer in layers:
                value = getattr(layer, field)
                if value is not None:
                    return (*key, field), value
            return layers[0][0], default

        source_at, source = entry("source")
        if source is None:
            return None
        expression = self._expression(source_at, source, name)
        threshold = entry("threshold", 0.5)[1]
        weight_at, weight = entry("weight")
        if isinstance(expression, OfClasses):
            if weight not in (None, 0) and weight_at[0] != "defaults":
                raise self.wrong(weight_at, f"a class made by {expression.how} has no evidence of its own: weight 0")
            weight = 0.0
        steps_at, chain = entry("postprocess", [])
        steps = tuple(self._step((*steps_at, i), entry, name) for i, entry in enumerate(chain))
        if steps_at[0] == "defaults" and not is_instance(name):
            steps = tuple(step for step in steps if step.method.stage is not Stage.LABEL)
        self._check_chain(steps_at, steps, name, expression)
        return Route(
            source=expression,
            threshold=threshold,
            weight=1.0 if weight is None else weight,
            resampling=entry("resampling", "linear")[1],
            steps=steps,
            place=yaml_place(self.path, self.lines, source_at),
        )

    def _expression(self, key: YamlKey, raw: Any, name: str) -> Expression:
        if raw == EMPTY:
            return EmptySource()
        if isinstance(raw, str):
            if raw not in self.raw.sources:
                hint = suggestion(raw, [*self.raw.sources, EMPTY])
                raise self.wrong(key, f"unknown source {raw!r}{hint}")
            return NamedSource(raw)
        if not isinstance(raw, dict) or len(raw) != 1:
            raise self.wrong(key, "expected a source's name, `empty`, or one of mean, max, …: {mean: {a: 3, b: 1}}")
        how, members = next(iter(raw.items()))
        if how in ("union", "intersection"):
            return OfClasses(how, tuple(self._classes((*key, how), members, name)))
        if how not in MIXES:
            raise self.wrong((*key, how), f"unknown mix {how!r}{suggestion(how, [*MIXES, 'union', 'intersection'])}")
        if isinstance(members, dict) and members:
            pairs = [((*key, how, part), part, weight) for part, weight in members.items()]
        elif isinstance(members, list) and members:
            pairs = [((*key, how, i), part, 1) for i, part in enumerate(members)]
        else:
            raise self.wrong((*key, how), "lists nothing to mix; give {source: weight, …} or [source, …]")
        for at, _, weight in pairs:
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
                raise self.wrong(
                    at, f"a weight must be a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, not {weight!r}"
                )
        return MixedSource(how, tuple((self._expression(at, part, name), float(weight)) for at, part, weight in pairs))

    def _classes(self, key: YamlKey, members: Any, name: str) -> Iterator[str]:
        if not isinstance(members, list) or not members:
            raise self.wrong(key, "expected a list of classes")
        for index, member in enumerate(members):
            if not isinstance(member, str) or member not in all_classes():
                raise self.wrong((*key, index), f"unknown class {member!r}{suggestion(str(member), all_classes())}")
            if member == name:
                raise self.wrong((*key, index), f"{name} cannot be made of itself")
            yield member

    def _step(self, key: YamlKey, raw: Any, name: str) -> Step:
        method_name: str | None = raw if isinstance(raw, str) else None
        given: Any = None
        if isinstance(raw, dict) and len(raw) == 1:
            method_name, given = next(iter(raw.items()))
        if method_name is None:
            raise self.wrong(key, "expected one method, such as {drop_small: {min_size_voxels: 50}}")
        method = METHODS.by_name.get(method_name)
        if method is None:
            at = (*key, method_name)
            raise self.wrong(at, f"unknown method {method_name!r}{suggestion(method_name, METHODS.by_name)}")
        try:
            parameters = method.parameters.model_validate({} if given is None else given)
        except ValidationError as invalid:
            at = (*key, method_name)
            raise RecipeError(
                explain_invalid(invalid, self.path, self.lines, model=method.parameters, at=at)
            ) from invalid
        step = Step(method, parameters.model_dump())
        seeds = step.seeds_from
        if seeds is not None and (seeds not in all_classes() or seeds == name):
            at = (*key, method_name, "seeds_from")
            raise self.wrong(at, f"{seeds!r} is not another class{suggestion(seeds, all_classes())}")
        return step

    def _check_chain(self, key: YamlKey, steps: Sequence[Step], name: str, source: Expression) -> None:
        labelled = filled = decided = False
        for index, step in enumerate(steps):
            at, stage, method = (*key, index), step.method.stage, step.method.name
            if stage in (Stage.PROBABILITY, Stage.FILL) and decided:
                raise self.wrong(at, f"{method} works on the probability; list it before the steps on objects")
            if stage is Stage.PROBABILITY and filled:
                raise self.wrong(at, f"{method} changes the mask that holes are filled in; list it before them")
            if step.method.traits.needs_probability and labelled:
                raise self.wrong(at, f"{method} judges connected components; list it before the labelling step")
            if stage is Stage.LABEL:
                if labelled:
                    raise self.wrong(at, "objects are labelled once; keep one of binary, components, watershed, …")
                if not is_instance(name) and step.labels:
                    raise self.wrong(
                        at, f"{name} is scored as a semantic class, so labels would be lost; drop {method}"
                    )
            if step.method.traits.needs_ids and not self._has_ids(source):
                raise self.wrong(at, f"{method} needs a source of labels; the source of {name} holds none")
            labelled |= stage is Stage.LABEL
            filled |= stage is Stage.FILL
            decided |= stage in (Stage.LABEL, Stage.FILTER)

    def _has_ids(self, source: Expression) -> bool:
        return isinstance(source, NamedSource) and self.raw.sources[source.name].labels is not None
