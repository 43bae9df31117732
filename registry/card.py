"""What must be known of a checkpoint to run it right, as a typed value and as a YAML file."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ensemble.core import all_classes, atoms_of
from ensemble.support import CardError, dotted_key, dump_yaml, explain_invalid, load_yaml, suggestion, yaml_place

Planes = Literal["zyx", "zy", "zx", "yx", "z", "y", "x"]
"""The axes that the slices for a 2D network are cut across: ``z`` gives slices in y and x."""

MonaiArchitecture = Literal["UNet", "DynUNet", "SegResNet", "SwinUNETR", "MedNeXt"]
PublishedArchitecture = Literal["MedNeXtV1"]
NnUNetArchitecture = Literal["PlainConvUNet", "ResidualEncoderUNet"]
ToolkitArchitecture = Literal["UNet_2D", "UNet_3D", "ResNet", "ViTVNet"]
Architecture = Literal[MonaiArchitecture, PublishedArchitecture, NnUNetArchitecture, ToolkitArchitecture]
Activation = Literal["sigmoid", "softmax", "none"]
TOOLKIT: tuple[str, ...] = get_args(ToolkitArchitecture)
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)

TO_BE_FILLED = "# please check:"
"""How the comment begins that a draft has above each line which only a person can fill."""

Where = Callable[..., str]
"""Tells the place of a key, given as its path from the top, in messages about a card."""


def _known_class(name: str) -> str:
    if name not in all_classes():
        raise ValueError(f"unknown class {name!r}{suggestion(name, all_classes())}")
    return name


def _isotropic(value: Any) -> Any:
    """One number stands for the same number along z, y and x."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value, value, value) if is_number else value


def _crop_name(value: Any) -> Any:
    """``601`` without quotes and ``crop601`` are what people write for the crop "601"."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value).removeprefix("crop") if is_number or isinstance(value, str) else value


Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Voxels = Annotated[int, Field(strict=True, ge=1, le=4096)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
UnsignedType = Literal["uint8", "uint16", "uint32", "uint64"]
SignedType = Literal["int8", "int16", "int32", "int64", "float16", "float32", "float64"]
EMType = Literal[UnsignedType, SignedType, "bool"]
Power = Annotated[Text, Field(pattern=r"^(0|-?[1-9][0-9]?)$")]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
ClassName = Annotated[Text, AfterValidator(_known_class)]
Crop = Annotated[Text, Field(min_length=1), BeforeValidator(_crop_name)]


class Normalisation(BaseModel):
    """What a network's input is made of grey values by: (x - subtract) / divide, of x limited to ``clip``.

    Instead of numbers: the mean or the least value, and the standard deviation or the range, of the whole image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: tuple[Number, Number] | None = None
    subtract: Number | Literal["mean", "min"] = 0.0
    divide: Positive | Literal["std", "range"] = 255.0

    @field_validator("clip")
    @classmethod
    def _in_order(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError(f"{list(clip)} is no range; write the lower limit first")
        return clip

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same for every image."""
        return not (isinstance(self.subtract, str) or isinstance(self.divide, str))

    def fixed(self, image: Iterable[np.ndarray]) -> "Normalisation":
        """The same in numbers, those of an image of which ``image`` yields all parts."""
        if self.is_fixed:
            return self
        count, total, squares, low, high = 0, 0.0, 0.0, math.inf, -math.inf
        for part in image:
            grey = self._clipped(np.asarray(part, np.float64))
            count, total, squares = count + grey.size, total + grey.sum(), squares + np.square(grey).sum()
            low, high = min(low, grey.min()), max(high, grey.max())
        mean = total / count
        std = math.sqrt(max(0.0, squares / count - mean**2))
        statistics = {"mean": mean, "min": low, "range": high - low, "std": std}
        subtract = statistics[self.subtract] if isinstance(self.subtract, str) else self.subtract
        divide = statistics[self.divide] if isinstance(self.divide, str) else self.divide
        return Normalisation(clip=self.clip, subtract=float(subtract), divide=max(1e-8, divide))

    def apply(self, grey: Any) -> Any:
        """``grey`` (a float array or tensor) as the network expects it; the whole image, unless ``is_fixed``."""
        if not self.is_fixed:
            return self.fixed([np.asarray(grey)]).apply(grey)
        return (self._clipped(grey) - self.subtract) / self.divide

    def _clipped(self, grey: Any) -> Any:
        return grey if self.clip is None else grey.clip(*self.clip)


class Card(BaseModel):
    """A model card; lengths in nm, axes z, y, x.

    Channel i of the network predicts ``classes[i]``; None is a channel nobody wants, such as background.
    ``activation`` "none" says that the network's outputs are probabilities already. Patches ``overlap`` by that share,
    and show EM around a crop where ``context`` is true. With ``planes`` the network is 2D: it sees the slices of a
    patch across each of these axes, and its probabilities are averaged. ``fine_tuned_from`` and
    ``merged_from`` name registered versions (models:/NAME/VERSION) whose weights these began as or are a mean of;
    ``origin`` is a name that all share whose weights began as the same, such as the run that trained them.
    ``em_dtype`` and ``em_range`` are type, lowest and highest grey value of the EM that it learned from.
    ``truth_sizes_log2_nm3``: instance class -> objects of its training truth by the power of two that their size in
    nm3 reaches. ``sha256`` is that of the registered weights, None before registration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[Text, Field(max_length=200)]
    architecture: Architecture
    arguments: dict[str, JsonValue]
    classes: Annotated[tuple[ClassName | None, ...], Field(min_length=1)]
    voxel_size_nm: Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_isotropic)]
    patch_voxels: Annotated[tuple[Voxels, Voxels, Voxels], BeforeValidator(_isotropic)]
    normalisation: Normalisation = Normalisation()
    em_dtype: EMType | None = None
    em_range: tuple[Number, Number] | None = None
    activation: Activation
    overlap: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    context: Annotated[bool, Field(strict=True)] = True
    planes: Planes | None = None
    trained_on: tuple[Crop, ...] = ()
    validated_on: tuple[Crop, ...] = ()
    datasets: tuple[Text, ...] = ()
    validation: dict[ClassName, Fraction] = {}
    truth_sizes_log2_nm3: dict[ClassName, dict[Power, Count]] = {}
    fine_tuned_from: Text | None = None
    merged_from: tuple[Text, ...] = ()
    origin: Text | None = None
    notes: Text = ""
    sha256: Annotated[Text, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isascii() or not name[:1].isalnum() or not all(c.isalnum() or c in "-_." for c in name):
            raise ValueError(f"{name!r} is not a name; begin with a letter or digit, then also - _ .")
        return name

    @field_validator("classes")
    @classmethod
    def _each_class_once(cls, classes: tuple[str | None, ...]) -> tuple[str | None, ...]:
        wanted = [name for name in classes if name is not None]
        if not wanted:
            raise ValueError("no channel predicts a class; name at least one")
        name, times = Counter(wanted).most_common(1)[0]
        if times > 1:
            raise ValueError(f"class {name!r} is there {times} times; name each channel's own class, or null")
        return classes

    @field_validator("em_range")
    @classmethod
    def _lowest_first(cls, em_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if em_range is not None and em_range[0] > em_range[1]:
            raise ValueError(f"{list(em_range)} is no range; write the lowest value first")
        return em_range

    @field_validator("activation")
    @classmethod
    def _softmax_excludes(cls, activation: str, info: ValidationInfo) -> str:
        classes = info.data.get("classes")
        if activation != "softmax" or classes is None:
            return activation
        if len(classes) == 1:
            raise ValueError("the softmax of a single channel is 1 everywhere; use 'sigmoid'")
        for a, b in combinations([name for name in classes if name is not None], 2):
            if atoms_of(a) & atoms_of(b):
                raise ValueError(
                    f"softmax makes channels exclude each other, but {a} and {b} overlap; use 'sigmoid' if"
                    " they were trained so, else name the class that each channel holds alone, or null"
                )
        return activation

    @field_validator("validation", "truth_sizes_log2_nm3")
    @classmethod
    def _scores_of_its_classes(cls, scores: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        classes = [name for name in info.data.get("classes", scores) if name is not None]
        for name in scores:
            if name not in classes:
                raise ValueError(f"no channel predicts {name!r}{suggestion(name, classes)}")
        return scores


def load_card(path: Path) -> Card:
    """The card in a YAML file; CardError names file, line and key of the first thing that is wrong."""
    path = Path(path)
    data, lines = load_yaml(path, CardError)
    try:
        return Card.model_validate(data)
    except ValidationError as invalid:
        fault = explain_invalid(invalid, path, lines, model=Card)
        is_draft = f"\n{TO_BE_FILLED}" in path.read_text(encoding="utf-8", errors="replace")
        hint = f'; this is a draft: fill in each line below a "{TO_BE_FILLED}"' if is_draft else ""
        raise CardError(f"{fault}{hint}") from invalid


def dump_card(card: Card) -> str:
    """The card as YAML, keys in the order of the fields; ``load_card`` reads back an equal card."""
    data = card.model_dump(mode="json")
    if card.sha256 is None:
        del data["sha256"]
    return dump_yaml(data)


def where_in(card: Card, path: Path | None) -> Where:
    """Where a fault found after loading lies, by the key path.

    That is ``file:line: key`` when ``path`` is the file the card was read from, else ``card NAME: key``.
    """

    def where(*key: str | int) -> str:
        if path is None:
            return f"card {card.name}: {dotted_key(key)}"
        return yaml_place(path, load_yaml(path, CardError)[1], key)

    return where
