"""The recipe: which source predicts each class, and what becomes of the prediction; plain values.

A recipe knows nothing of checkpoints, volumes or machines; ``ensemble.plan`` brings them together.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from ensemble.core import Interpolation, Target
from ensemble.methods import Stage, Step
from ensemble.storage import GivenGrid
from ensemble.support import RecipeError

TTA = Literal["none", "mirror", "octahedral"]
Activation = Literal["sigmoid", "softmax"]
EMWanted = Literal["as trained", "any"]
Consistency = Literal["none", "report", "joint"]


@dataclass(frozen=True)
class ModelSource:
    """A registered model, such as ``models:/mito-l-4nm@champion``; ``em``: what EM it may run on.

    ``overlap`` of its patches and whether they show ``context`` around a crop are as its card says where None.
    """

    uri: str
    tta: TTA = "none"
    em: EMWanted = "as trained"
    overlap: float | None = None
    context: bool | None = None


@dataclass(frozen=True)
class PredictionSource:
    """Stored probabilities: a template with {root}, {dataset}, {crop} and {class}.

    ``channels``: the class of each channel of an array of four axes; empty for arrays of one class. ``activation``
    makes probabilities of raw outputs, softmax over all channels; ``scale`` is the value that stands for 1;
    ``grid`` tells where an array lies whose file does not.
    """

    template: str
    channels: tuple[str | None, ...] = ()
    activation: Activation | None = None
    scale: float | None = None
    grid: GivenGrid | None = None


@dataclass(frozen=True)
class LabelSource:
    """Stored labels: a template as above, or the zip of an earlier submission."""

    template: str
    grid: GivenGrid | None = None


Source = ModelSource | PredictionSource | LabelSource


@dataclass(frozen=True)
class EmptySource:
    """Nobody predicts the class: zeros, on purpose."""


@dataclass(frozen=True)
class NamedSource:
    """One of the recipe's sources."""

    name: str


@dataclass(frozen=True)
class MixedSource:
    """Sources mixed by one of ``methods.MIXES``, each with its weight."""

    how: str
    parts: tuple[tuple["Expression", float], ...]


@dataclass(frozen=True)
class OfClasses:
    """The union (largest) or intersection (smallest) of other classes' probabilities."""

    how: Literal["union", "intersection"]
    classes: tuple[str, ...]


Expression = EmptySource | NamedSource | MixedSource | OfClasses


@dataclass(frozen=True)
class Route:
    """How one class is made in one crop. ``weight`` is for joint decoding; ``place`` is where the recipe says so."""

    source: Expression
    threshold: float
    weight: float | Literal["hard"]
    resampling: Interpolation
    steps: tuple[Step, ...]
    place: str

    def of_stage(self, *stages: Stage) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.method.stage in stages)


@dataclass(frozen=True)
class Condition:
    """The crops that a ``when`` entry is for; ``place`` is where the recipe says so."""

    voxel_size: tuple[str, float] | None = None
    dataset: str = "*"
    crop: str = "*"
    place: str = ""

    def fits_dataset(self, dataset: str) -> bool:
        return fnmatchcase(dataset, self.dataset)

    def holds(self, target: Target) -> bool:
        compare, limit_nm = self.voxel_size or (">", 0.0)
        return (
            _COMPARE[compare](max(target.grid.voxel_size_nm), limit_nm)
            and self.fits_dataset(target.dataset)
            and fnmatchcase(target.crop, self.crop.removeprefix("crop"))
        )


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b * (1 - 1e-9),
    "<=": lambda a, b: a <= b * (1 + 1e-9),
    ">": operator.gt,
    "<": operator.lt,
    "==": lambda a, b: abs(a - b) <= 1e-6 * b,
}


@dataclass(frozen=True)
class Rule:
    """A class's route, and the routes that replace it in some crops: the first that holds wins."""

    route: Route | None
    when: tuple[tuple[Condition, Route], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says; ``rules`` are in the file's order.

    ``tune`` is what tuning may do, by class, as plain values: a build does not look at it.
    """

    name: str
    path: Path
    sources: dict[str, Source]
    source_places: dict[str, str]
    rules: dict[str, Rule]
    fallback: Callable[[str], Route | None]
    consistency: Consistency
    tune: dict[str, Any] = field(default_factory=dict)

    def rule(self, name: str) -> Rule:
        """The class's own rule, or that of the defaults."""
        return self.rules.get(name) or Rule(self.fallback(name))

    def entry(self, name: str, target: Target) -> int | None:
        """Which ``when`` entry of a class a crop takes; None for the main one."""
        conditions = enumerate(condition for condition, _ in self.rule(name).when)
        return next((index for index, condition in conditions if condition.holds(target)), None)

    def route(self, name: str, target: Target) -> Route:
        """The route of a class in a crop. Raises RecipeError for a class without one."""
        rule, entry = self.rule(name), self.entry(name, target)
        route = rule.route if entry is None else rule.when[entry][1]
        if route is None:
            raise RecipeError(
                f"{self.path}: class {name} is scored in crop {target.crop} but has no route; "
                f"give classes.{name}.source, or list it under `empty` to write zeros"
            )
        return route
