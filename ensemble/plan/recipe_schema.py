"""The shape of a recipe file, before it is known whether what it names is there."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ensemble.core import Interpolation
from ensemble.methods import MOST_WEIGHT, Fraction
from ensemble.plan.recipe import TTA, Activation, Consistency, EMWanted


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Number = Annotated[float, Field(strict=True)]


class RouteEntry(StrictModel):
    source: Any = None
    threshold: Annotated[Fraction, Field(strict=True)] | None = None
    weight: Annotated[Number, Field(ge=0, le=MOST_WEIGHT)] | Literal["hard"] | None = None
    resampling: Interpolation | None = None
    postprocess: list[Any] | None = None


def _number_as_name(value: Any) -> Any:
    """The challenge's crops are called by numbers."""
    return str(value) if type(value) is int else value


class WhenEntry(RouteEntry):
    voxel_size_nm: str | None = None
    dataset: str = "*"
    crop: Annotated[str, BeforeValidator(_number_as_name)] = "*"


class ClassEntry(RouteEntry):
    when: list[WhenEntry] = []


Nm = Annotated[Number, Field(ge=-1e9, le=1e9)]
VoxelNm = Annotated[Number, Field(ge=0.1, le=100_000)]


class GridEntry(StrictModel):
    voxel_size_nm: tuple[VoxelNm, VoxelNm, VoxelNm] | None = None
    origin_nm: tuple[Nm, Nm, Nm] | None = None
    axes: Annotated[str, Field(pattern=r"^[zyxc]{3,4}$")] | None = None
    is_crop: bool = Field(default=False, alias="crop", strict=True)


def _crop_as_grid(value: Any) -> Any:
    return {"crop": True} if value == "crop" else value


class SourceEntry(StrictModel):
    model: str | None = None
    tta: TTA | None = None
    em: EMWanted | None = None
    overlap: Annotated[Number, Field(ge=0, lt=1)] | None = None
    context: Annotated[bool, Field(strict=True)] | None = None
    predictions: str | None = None
    channels: list[str | None] | None = None
    activation: Activation | None = None
    scale: Annotated[Number, Field(ge=1e-6, le=2**64)] | None = None
    labels: str | None = None
    grid: Annotated[GridEntry, BeforeValidator(_crop_as_grid)] | None = None


class RecipeFile(StrictModel):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sources: dict[str, SourceEntry] = {}
    defaults: RouteEntry = RouteEntry()
    classes: dict[str, ClassEntry] = {}
    empty: list[str] = []
    consistency: Consistency = "none"
    tune: dict[str, Any] = {}
