"""What the attributes of arrays and groups say, as values of known types; whatever else they hold ends here."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import zarr
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ensemble.storage.addresses import Location
from ensemble.storage.nodes import ZarrArray
from ensemble.support import VolumeError, YamlKey, fault_in_words

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Numbers = Annotated[tuple[_Number, ...], Field(min_length=1, max_length=32)]
_Name = Annotated[str, Field(strict=True, max_length=256, pattern=r"^[^\x00]*$")]


class _Attributes(BaseModel):
    """Other keys are other tools' own. ``advice``: what to do where they are not as they should be."""

    advice: ClassVar[str] = "correct them"

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Axis(_Attributes):
    """An axis by name; of a length, unless its ``type`` is another."""

    name: _Name
    type: _Name | None = "space"
    unit: _Name | None = None


def _by_name(axis: Any) -> Any:
    """OME-NGFF 0.3, and others, name an axis and say no more of it."""
    return {"name": axis} if isinstance(axis, str) else axis


_Axes = Annotated[list[Annotated[Axis, BeforeValidator(_by_name)]], Field(min_length=1, max_length=32)]
_Names = Annotated[list[_Name | None], Field(max_length=32)]


class Scale(_Attributes):
    type: Literal["scale"]
    scale: Numbers


class Translation(_Attributes):
    type: Literal["translation"]
    translation: Numbers


class Identity(_Attributes):
    type: Literal["identity"]


_Transformations = Annotated[
    list[Annotated[Scale | Translation | Identity, Field(discriminator="type")]], Field(max_length=32)
]


class Level(_Attributes):
    """One dataset of a multiscale image."""

    path: _Name
    transformations: _Transformations = Field(default=[], alias="coordinateTransformations")


class Multiscale(_Attributes):
    """An image at several voxel sizes, as OME-NGFF 0.3 to 0.5 describe it."""

    advice = "write them as OME-NGFF 0.4 says"

    axes: _Axes
    datasets: Annotated[list[Level], Field(min_length=1, max_length=256)]
    transformations: _Transformations = Field(default=[], alias="coordinateTransformations")

    @property
    def says_only_scales(self) -> bool:
        """Whether no level says where it begins."""
        return not any(isinstance(t, Translation) for level in self.datasets for t in level.transformations)


class Naming(_Attributes):
    """What arrays say of their axes, under the keys that are in use."""

    array_dimensions: _Names | None = Field(default=None, alias="_ARRAY_DIMENSIONS")
    axis_names: _Names | None = None
    axes: _Axes | None = None
    units: _Names | _Name | None = None
    unit: _Names | _Name | None = None


NAMES_OF_AXES = tuple(field.alias or name for name, field in Naming.model_fields.items())


class Placed(_Attributes):
    """Where a plain array lies, in the order of its axes."""

    advice = "write three numbers, along z, y and x, in nm"

    voxel_size: Numbers | None = None
    translation: Numbers | None = None


_Kind = TypeVar("_Kind", bound=_Attributes)


def read_attributes(kind: type[_Kind], attributes: Any, place: Location, under: YamlKey = ()) -> _Kind:
    """Attributes as what they should be; ``under`` is where they stand. Raises VolumeError for any others."""
    try:
        return kind.model_validate(attributes)
    except ValidationError as invalid:
        raise VolumeError(f"{place}: its attributes: {fault_in_words(invalid, under)}; {kind.advice}") from invalid


def attributes_of(node: ZarrArray | zarr.Group, place: Location) -> dict[str, Any]:
    """A node's attributes. Raises VolumeError where they are no keys and values."""
    attributes: Any = node.metadata.attributes
    if not isinstance(attributes, Mapping):
        raise VolumeError(f"{place}: its attributes are no keys and values, but {type(attributes).__name__}")
    return dict(attributes)


def multiscale_of(attributes: Mapping[str, Any], place: Location) -> Multiscale | None:
    """The first multiscale image that a group's attributes describe; None without. Raises VolumeError."""
    within = attributes.get("ome", attributes)
    listed = within.get("multiscales") if isinstance(within, Mapping) else None
    if not listed:
        return None
    if not isinstance(listed, list):
        raise VolumeError(f"{place}: its attributes: multiscales: must be a list; {Multiscale.advice}")
    return read_attributes(Multiscale, listed[0], place, ("multiscales", 0))
