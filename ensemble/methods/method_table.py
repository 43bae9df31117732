"""The table of post-processing methods: a method's signature is its only schema.

Positional parameters are what the method works on; keyword-only parameters are what a recipe may say, typed
and bounded. A method is registered by decorating it, and stays callable as the plain function it is.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, create_model, model_validator

from ensemble.core import NmZYX

Function = TypeVar("Function", bound=Callable[..., Any])


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
class Traits:
    """What must be known of a method to run it right, beyond its parameters.

    Functions here are called with a step's parameters by name. ``reach_nm``: how far a probability step looks.
    ``indivisible``: whether a component always is one object. ``undivided_below_nm``: a component that reaches
    less far than this along each axis is one object (called with ``voxel_size_nm`` too). ``gives_ids``: whether
    objects are numbered in the written array. ``bytes_per_voxel``: about what labelling takes at its peak for
    each voxel of a component's box.
    """

    reach_nm: Callable[..., float] = lambda **_: 0.0
    indivisible: Callable[..., bool] = lambda **_: False
    undivided_below_nm: Callable[..., Sequence[float] | None] = lambda **_: None
    gives_ids: bool = True
    needs_probability: bool = False
    needs_ids: bool = False
    bytes_per_voxel: int = 20


@dataclass(frozen=True)
class Method:
    """A registered method."""

    name: str
    stage: Stage
    function: Callable[..., Any]
    parameters: type[BaseModel]
    traits: Traits

    def __reduce__(self) -> tuple[Callable[[str], "Method"], tuple[str]]:
        """Sent to another process by its name: the model of its parameters is made there anew."""
        return _method, (self.name,)


def _method(name: str) -> Method:
    from ensemble.methods.steps import METHODS

    return METHODS.by_name[name]


@dataclass(frozen=True)
class Step:
    """A method with its parameters: one entry of a recipe's chain."""

    method: Method
    parameters: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.method.name, tuple(sorted(self.parameters.items()))))

    def __call__(self, *data: Any) -> Any:
        return self.method.function(*data, **self.parameters)

    @property
    def reach_nm(self) -> float:
        """How far around a voxel the step looks."""
        return self.method.traits.reach_nm(**self.parameters)

    @property
    def indivisible(self) -> bool:
        """Whether a component always stays one object."""
        return self.method.traits.indivisible(**self.parameters)

    def undivided_below_nm(self, voxel_size_nm: NmZYX) -> Sequence[float] | None:
        """A component that reaches less far than this along each axis is one object; None: any may be cut."""
        return self.method.traits.undivided_below_nm(voxel_size_nm=voxel_size_nm, **self.parameters)

    @property
    def labels(self) -> bool:
        """Whether the step numbers objects in the written array."""
        return self.method.stage is Stage.LABEL and self.method.traits.gives_ids

    @property
    def seeds_from(self) -> str | None:
        """The class whose objects are the step's seeds, if another's are."""
        return self.parameters.get("seeds_from")

    def describe(self) -> dict[str, dict[str, Any]]:
        """The step as a recipe would say it."""
        return {self.method.name: {key: value for key, value in self.parameters.items() if value is not None}}


class MethodTable:
    """A registry, used as a decorator: refuses two methods of one name, returns the function unchanged."""

    def __init__(self) -> None:
        self.by_name: dict[str, Method] = {}

    def __call__(
        self, stage: Stage, traits: Traits | None = None, *, exactly_one: tuple[str, ...] = ()
    ) -> Callable[[Function], Function]:
        """Register the decorated function; of the parameters ``exactly_one`` a recipe must give one."""

        def register(function: Function) -> Function:
            name = function.__name__
            if name in self.by_name:
                raise ValueError(f"two methods are called {name}")
            parameters = _parameters(function, exactly_one)
            self.by_name[name] = Method(name, stage, function, parameters, traits or Traits())
            return function

        return register


def _parameters(function: Callable[..., Any], exactly_one: tuple[str, ...]) -> type[BaseModel]:
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default)
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }

    def check(model: BaseModel) -> BaseModel:
        given = [name for name in exactly_one if getattr(model, name) is not None]
        if exactly_one and len(given) != 1:
            raise ValueError(f"give exactly one of {' and '.join(exactly_one)}")
        return model

    # the decorated function is a descriptor, which pydantic's own signature leaves out
    validators: dict[str, Any] = {"exactly_one": model_validator(mode="after")(check)}
    return create_model(
        f"{function.__name__} parameters",
        __config__=ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False),
        __validators__=validators,
        **fields,
    )
