"""The sources that may be tried: the recipe's, registered models beside them, each with and without augmentation."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ensemble.core import Target
from ensemble.plan import (
    LabelSource,
    MixedSource,
    ModelSource,
    NamedSource,
    PredictionSource,
    Recipe,
    Source,
    model_source_as_recipe,
    sources_in,
)
from ensemble.predict import open_predictions
from ensemble.storage import open_truth
from ensemble.support import (
    EnsembleError,
    RecipeError,
    VolumeError,
    dump_yaml,
    explain_invalid,
    load_yaml,
    suggestion,
    yaml_place,
)
from ensemble.tune.space import Narrowed, twins
from registry import Card, ModelVersion, Registry

MAX_VOXEL_RATIO = 2
"""Of a model's voxels to a crop's, either way along any axis, for it to be tried where the recipe does not use it."""


class Candidates:
    """What may predict each class of some crops that have truth; made by ``Candidates.of``.

    ``extra`` are the sources that the recipe lacks.
    """

    def __init__(
        self,
        recipe: Recipe,
        targets: Sequence[Target],
        truth: Path,
        registry: Registry,
        narrowed: Mapping[str, Narrowed],
        extra: dict[str, ModelSource],
    ) -> None:
        self._recipe, self._targets, self._truth, self._registry = recipe, targets, truth, registry
        self._narrowed, self.extra = narrowed, extra
        self._twin_of: dict[str, str] = {}
        self._left_out: set[str] = set()

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        targets: Sequence[Target],
        truth: Path,
        registry: Registry,
        *,
        registered: bool,
        augment: bool,
    ) -> "Candidates":
        """``registered``: also models with an alias that the recipe does not name; ``augment``: also each model with
        mirror augmentation, or without. Raises RecipeError for a ``tune`` that cannot be meant.
        """
        scored = {name for target in targets for name in target.classes}
        extra = _registered(recipe, scored, registry) if registered else {}
        candidates = cls(recipe, targets, truth, registry, narrowed_by(recipe), extra)
        if augment:
            candidates._add_twins()
        return candidates

    def _add_twins(self) -> None:
        """Also each model with augmentation, or without."""
        wanted = [
            name for name in self.sources if any(self.may(name, c) and self.narrowed(c).tta for c in self._scored)
        ]
        for twin, (name, spec) in twins(self.sources, wanted).items():
            self._twin_of[twin], self.extra[twin] = name, spec

    @property
    def _scored(self) -> set[str]:
        return {name for target in self._targets for name in target.classes}

    @property
    def sources(self) -> dict[str, Source]:
        return {name: s for name, s in {**self._recipe.sources, **self.extra}.items() if name not in self._left_out}

    def leave_out(self, sources: Collection[str]) -> None:
        """Try these no more."""
        self._left_out |= set(sources)

    def refuse_leaks(self, models: Mapping[str, ModelVersion], *, force: bool) -> dict[str, list[str]]:
        """By crop the sources whose models were trained on it. Raises EnsembleError unless that is forced."""
        leaks = {
            target.group: [name for name, model in models.items() if target.crop in model.card.trained_on]
            for target in self._targets
        }
        leaks = {crop: names for crop, names in leaks.items() if names}
        if leaks and not force:
            crop, names = next(iter(leaks.items()))
            raise EnsembleError(
                f"{crop}: {', '.join(names)} was trained on it, so it cannot judge; tune on other crops (--crops), or"
                " say --force, which is noted in the result"
            )
        return leaks

    @property
    def augmented(self) -> frozenset[str]:
        """The sources that are run with augmentation."""
        return frozenset(n for n, s in self.sources.items() if isinstance(s, ModelSource) and s.tta != "none")

    def narrowed(self, name: str) -> Narrowed:
        """What the recipe says of tuning a class."""
        return self._narrowed.get(name, Narrowed())

    def may(self, source: str, name: str) -> bool:
        """Whether what the recipe says of a class leaves a source to be tried."""
        narrowed, plain = self.narrowed(name), self._twin_of.get(source, source)
        if narrowed.fixed or (narrowed.sources is not None and plain not in narrowed.sources):
            return False
        return narrowed.tta or source not in self.augmented

    @cached_property
    def _cards(self) -> dict[str, Card]:
        specs = {name: spec for name, spec in self.sources.items() if isinstance(spec, ModelSource)}
        return {name: self._registry.resolve(spec.uri).card for name, spec in specs.items()}

    def for_class(self, name: str, target: Target, data_root: str) -> list[str]:
        """The sources that hold a class in a crop with truth and may be tried for it, in the recipe's order."""
        free = isinstance(self._recipe.route(name, target).source, NamedSource | MixedSource)
        if not free or open_truth(self._truth, target, name) is None:
            return []
        return [
            source
            for source, spec in self.sources.items()
            if self.may(source, name) and self._holds(source, spec, name, target, data_root)
        ]

    def _holds(self, source: str, spec: Source, name: str, target: Target, data_root: str) -> bool:
        if isinstance(spec, ModelSource):
            return name in self._cards[source].classes and not self._too_far(source, name, target)
        if not isinstance(spec, PredictionSource):
            return False
        try:
            open_predictions(spec, data_root, target, [name])
        except VolumeError:
            return False
        return True

    def _too_far(self, source: str, name: str, target: Target) -> bool:
        """Whether a model works on voxels that are far from the crop's, and the recipe does not itself use it there."""
        if self._twin_of.get(source, source) in sources_in(self._recipe.route(name, target).source):
            return False
        sizes = zip(self._cards[source].voxel_size_nm, target.grid.voxel_size_nm, strict=True)
        return any(max(a / b, b / a) > MAX_VOXEL_RATIO for a, b in sizes)

    def skipped(self, data_root: str) -> tuple[str, ...]:
        """What is not tried because of its voxels, and where, a line each."""
        found: dict[str, list[str]] = {}
        for source, spec in self.sources.items():
            for target in self._targets if isinstance(spec, ModelSource) else ():
                held = [n for n in target.classes if n in self._cards[source].classes and self.may(source, n)]
                if held and all(self._too_far(source, name, target) for name in held):
                    sizes = (_nm(grid) for grid in (self._cards[source].voxel_size_nm, target.grid.voxel_size_nm))
                    what = "{}: its voxels are {} nm, the crop's {}".format(source, *sizes)
                    found.setdefault(what, []).append(target.crop)
        return tuple(f"{what} (crop {', '.join(crops)})" for what, crops in found.items())

    def survey(self, raw: Mapping[str, Any], data_root: str) -> str:
        """A recipe that needs every source that may be tried, so that the builder's own machinery predicts them."""
        extra = {name: model_source_as_recipe(spec) for name, spec in self.extra.items()}
        classes: dict[str, Any] = {}
        for name in dict.fromkeys(name for target in self._targets for name in target.classes):
            when = []
            for target in (target for target in self._targets if name in target.classes):
                used = sources_in(self._recipe.route(name, target).source)
                names = dict.fromkeys([*used, *self.for_class(name, target, data_root)])
                predicted = [n for n in names if not isinstance(self.sources[n], LabelSource)]
                condition = {"crop": escape(target.crop), "dataset": escape(target.dataset)}
                when.append({**condition, "source": {"mean": predicted} if predicted else "empty"})
            classes[name] = {"source": "empty", "when": when}
        return dump_yaml({"name": "survey", "sources": {**(raw.get("sources") or {}), **extra}, "classes": classes})


def _nm(sizes: Sequence[float]) -> str:
    return "x".join(f"{v:g}" for v in dict.fromkeys(sizes))


def _registered(recipe: Recipe, scored: Collection[str], registry: Registry) -> dict[str, ModelSource]:
    """Models with an alias, and a class that is scored, that the recipe does not name."""
    specs = [s for s in recipe.sources.values() if isinstance(s, ModelSource)]
    named = {re.split("[@/]", spec.uri.removeprefix("models:/"))[0] for spec in specs}
    aliases: dict[str, str] = {}
    for version in registry.versions():
        if version.name in named or not version.aliases or not set(scored) & set(version.card.classes):
            continue
        if "champion" in version.aliases or version.name not in aliases:
            aliases[version.name] = "champion" if "champion" in version.aliases else version.aliases[0]
    sources: dict[str, ModelSource] = {}
    for model, alias in aliases.items():
        name = "m_" + re.sub(r"\W", "_", model)
        while name in recipe.sources or name in sources:
            name += "_"
        sources[name] = ModelSource(f"models:/{model}@{alias}")
    return sources


def narrowed_by(recipe: Recipe) -> dict[str, Narrowed]:
    """What the recipe's ``tune`` says, by class. Raises RecipeError with the line of what cannot be meant."""
    narrowed = {}
    _, lines = load_yaml(recipe.path, RecipeError)
    for name, entry in recipe.tune.items():
        if name == "consistency":
            if entry != "fixed":
                place = yaml_place(recipe.path, lines, ("tune", name))
                raise RecipeError(f"{place}: can only be 'fixed'; leave it out to have it chosen")
            continue
        try:
            narrowed[name] = Narrowed.model_validate({"fixed": True} if entry == "fixed" else entry)
        except ValidationError as invalid:
            raise RecipeError(
                explain_invalid(invalid, recipe.path, lines, model=Narrowed, at=("tune", name))
            ) from invalid
        for index, source in enumerate(narrowed[name].sources or ()):
            if source not in recipe.sources:
                place = yaml_place(recipe.path, lines, ("tune", name, "sources", index))
                raise RecipeError(f"{place}: unknown source {source!r}{suggestion(source, recipe.sources)}")
    return narrowed
