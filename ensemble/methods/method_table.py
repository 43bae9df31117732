"""The table of post-processing methods: a method's signature is its only schema.

Positional parameters are what the method works on; keyword-only parameters are what a recipe may say, typed
and bounded. A method is registered by decorating it, and stays callable as the plain function it is.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model, model_validator


class Stage(StrEnum):
    """When a step runs, and on what."""

    PROBABILITY = "probability"
    """A class's probability, before the decision; local, exact with a halo of ``reach_nm``."""
    FILL = "fill"
    """Holes of a class's mask, before the decision: which of them to fill."""
    LABEL = "label"
    """One 26-connected component of the decided mask: its objects."""
    FILTER = "filter"
    """The objects of the decided mask: which of them stay."""


@dataclass(frozen=True)
class Method:
    """A registered method. ``traits`` hold what an executor must know beyond the parameters."""

    name: str
    stage: Stage
    function: Callable[..., Any]
    parameters: type[BaseModel]
    traits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A method with its parameters: one entry of a recipe's chain."""

    method: Method
    parameters: dict[str, Any]

    def __hash__(self) -> int:
        return hash((self.method.name, tuple(sorted(self.parameters.items()))))

    def __call__(self, *data: Any) -> Any:
        return self.method.function(*data, **self.parameters)

    def trait(self, name: str, **more: Any) -> Any:
        """The value of a trait; a trait that is a function is called with this step's parameters and ``more``."""
        value = self.method.traits.get(name)
        return value(**self.parameters, **more) if callable(value) else value

    def describe(self) -> dict[str, Any]:
        """The step as a recipe would say it."""
        said = {key: value for key, value in self.parameters.items() if value is not None}
        return {self.method.name: said}


class Methods:
    """A registry, used as a decorator: refuses two methods of one name, returns the function unchanged."""

    def __init__(self) -> None:
        self.by_name: dict[str, Method] = {}

    def __call__(self, stage: Stage, *, exactly_one: tuple[str, ...] = (), **traits: Any) -> Callable:
        def register(function: Callable) -> Callable:
            name = function.__name__
            if name in self.by_name:
                raise ValueError(f"two methods are called {name}")
            parameters = _parameters(function, exactly_one)
            self.by_name[name] = Method(name, stage, function, parameters, traits)
            return function

        return register


def _parameters(function: Callable, exactly_one: tuple[str, ...]) -> type[BaseModel]:
    signature = inspect.signature(function, eval_str=True)
    fields = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default)
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }

    def check(model: BaseModel) -> BaseModel:
        given = [name for name in exactly_one if getattr(model, name) is not None]
        if exactly_one and len(given) != 1:
            raise ValueError(f"give exactly one of {' and '.join(exactly_one)}")
        return model

    return create_model(
        f"{function.__name__} parameters",
        __config__=ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False),
        __validators__={"exactly_one": model_validator(mode="after")(check)},
        **fields,
    )
