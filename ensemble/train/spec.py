"""What to train, on what and how, as a typed value and as a YAML file."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ensemble.support import (
    TrainingError,
    YamlLines,
    dotted_key,
    explain_invalid,
    load_yaml,
    parse_yaml,
    suggestion,
    yaml_place,
)
from registry import (
    MODEL_URI,
    Architecture,
    Card,
    ClassName,
    Crop,
    Fraction,
    Normalisation,
    Number,
    Positive,
    Text,
    Voxels,
    alias_fault,
)


def _each_axis(value: Any) -> Any:
    """One number stands for the same number along z, y and x."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value, value, value) if is_number else value


def _usable_alias(alias: str) -> str:
    fault = alias_fault(alias)
    if fault is not None:
        raise ValueError(fault)
    return alias


Count = Annotated[int, Field(strict=True, ge=1)]
NotNegative = Annotated[Number, Field(ge=0)]
CropsOf = dict[Text, Annotated[tuple[Crop, ...], Field(min_length=1)]]
Augmentation = Literal["mirror", "transpose", "rotate", "intensity"]


class TrainingSpec(BaseModel):
    """A specialist to be trained; lengths in nm, axes z, y, x.

    ``crops`` and ``validation_crops`` name crops by data set. A step is one update of the weights, made
    from ``accumulate`` batches of ``batch_size`` patches; ``steps`` and ``validate_every`` count steps,
    ``patience`` validations without a better one. ``foreground_share`` of the patches lie around a voxel
    of a class drawn uniformly among those there are, the others anywhere in the crops. ``data``, if given,
    is the root of the data, relative to the spec's file. The checkpoints of the last ``keep`` validations stay,
    to be averaged; ``begin_from`` names a registered model of the same network whose weights training begins with.

    ``compile`` has torch compile the network ("auto": on a GPU, where the steps are many enough to pay for the minutes
    that takes); ``checkpointing`` recomputes what is inside its blocks in the backward pass instead of keeping it.
    ``devices`` train together, each on batches of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    alias: Annotated[Text, AfterValidator(_usable_alias)] = "champion"
    architecture: Architecture
    arguments: dict[str, JsonValue]
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)]
    voxel_size_nm: Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_each_axis)]
    patch_voxels: Annotated[tuple[Voxels, Voxels, Voxels], BeforeValidator(_each_axis)]
    normalisation: Normalisation = Normalisation()
    activation: Literal["sigmoid"] = "sigmoid"
    data: Text | None = None
    crops: Annotated[CropsOf, Field(min_length=1)]
    validation_crops: CropsOf = {}
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
    steps: Count
    batch_size: Count = 1
    accumulate: Count = 1
    learning_rate: Positive
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: NotNegative = 1e-5
    gradient_clip: NotNegative = 1.0
    loss: Literal["bce", "bce_dice"] = "bce"
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    foreground_share: Fraction = 0.5
    augment: tuple[Augmentation, ...] = ("mirror", "transpose", "rotate")
    validate_every: Count = 500
    patience: Count = 50
    keep: Annotated[int, Field(strict=True, ge=0)] = 0
    begin_from: Annotated[Text, Field(pattern=MODEL_URI)] | None = None
    compile: Annotated[bool, Field(strict=True)] | Literal["auto"] = "auto"
    checkpointing: Annotated[bool, Field(strict=True)] = False
    devices: Count = 1

    _file: Path | None = PrivateAttr(default=None)

    @field_validator("normalisation")
    @classmethod
    def _is_fixed(cls, normalisation: Normalisation) -> Normalisation:
        if not normalisation.is_fixed:
            raise ValueError("training sees patches, never a whole image; give subtract and divide as numbers")
        return normalisation

    @field_validator("crops", "validation_crops")
    @classmethod
    def _each_crop_once(cls, crops: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for dataset, names in crops.items():
            for name in names:
                if names.count(name) > 1:
                    times = names.count(name)
                    raise ValueError(f"crop {name} of {dataset} is there {times} times; name it once")
        return crops

    @field_validator("validation_crops")
    @classmethod
    def _never_trained_on(cls, crops: Mapping[str, tuple[str, ...]], info: ValidationInfo) -> Any:
        trained_on = set(pairs(info.data.get("crops", {})))
        for dataset, name in pairs(crops):
            if (dataset, name) in trained_on:
                raise ValueError(f"crop {name} of {dataset} is trained on, so it cannot judge; name another")
        return crops

    def card(self, **known: Any) -> Card:
        """The card of the network this spec trains, with whatever else is ``known``.

        Raises pydantic's ValidationError for a name or classes that no card may have.
        """
        return Card(
            name=self.name,
            architecture=self.architecture,
            arguments=self.arguments,
            classes=self.classes,
            voxel_size_nm=self.voxel_size_nm,
            patch_voxels=self.patch_voxels,
            normalisation=self.normalisation,
            activation=self.activation,
            trained_on=tuple(crop for _, crop in pairs(self.crops)),
            validated_on=tuple(crop for _, crop in pairs(self.validation_crops)),
            datasets=tuple(dict.fromkeys([*self.crops, *self.validation_crops])),
            **known,
        )

    def digest(self) -> str:
        """Changes when anything does that shapes the weights, other than by rounding."""
        others = {"alias", "data", "keep", "compile", "checkpointing"}
        return hashlib.sha256(self.model_dump_json(exclude=others).encode()).hexdigest()

    @property
    def file(self) -> Path | None:
        """The file this spec was read from."""
        return self._file

    def where(self, *key: str | int) -> str:
        """Where ``key`` is said, for messages: ``file:line: key``."""
        if self._file is None:
            return f"training spec {self.name}: {dotted_key(key)}"
        return yaml_place(self._file, load_yaml(self._file, TrainingError)[1], key)


def pairs(crops: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Every data set and crop of a spec's ``crops``, in their order."""
    return ((dataset, name) for dataset, names in crops.items() for name in names)


def find_spec(name: str | Path) -> Path:
    """The spec file of that path, else the one of that name among the specs shipped."""
    path, shipped = Path(name), Path(str(files("recipes"))) / "train"
    for candidate in (path, shipped / path, shipped / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    known = [p.stem for p in shipped.glob("*.yaml")]
    raise TrainingError(f"{name}: there is no such training spec{suggestion(path.name, known)}")


def load_spec(path: str | Path, changes: Mapping[str, str] | None = None) -> TrainingSpec:
    """The spec in a YAML file; TrainingError names file, line and key of the first thing that is wrong.

    ``changes`` are keys whose value, as YAML, takes the place of the file's.
    """
    path = find_spec(path)
    data, lines = load_yaml(path, TrainingError)
    if changes and isinstance(data, dict):
        data |= {key: parse_yaml(text, Path(f"--set {key}"), TrainingError)[0] for key, text in changes.items()}
    try:
        spec = TrainingSpec.model_validate(data)
        spec.card()
    except ValidationError as invalid:
        raise TrainingError(_what(invalid, path, lines, changes or {})) from invalid
    if spec.data is not None and "://" not in spec.data:
        spec = spec.model_copy(update={"data": str(path.parent / spec.data)})
    spec._file = path
    return spec


def _what(invalid: ValidationError, path: Path, lines: YamlLines, changes: Mapping[str, str]) -> str:
    explanation = explain_invalid(invalid, path, lines, model=TrainingSpec)
    key = next((str(part) for part in invalid.errors()[0]["loc"] if part in changes), None)
    return explanation if key is None else f"--set {key}={changes[key]}: {explanation.split(': ', 2)[-1]}"
