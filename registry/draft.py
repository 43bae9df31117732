"""A draft of the card of a checkpoint: what the file tells of itself, and which lines only a person can fill."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ensemble.support import dump_yaml, one_line
from registry import mednext_checkpoint, monai_bundle, networks, nnunet, toolkit_checkpoint, toolkit_folder
from registry.card import ARCHITECTURES, TO_BE_FILLED
from registry.checkpoint import Tensors, read
from registry.description_files import known_class
from registry.network_settings import described_by, mappings
from registry.weight_choice import unwrapped

KEYS = (
    *("name", "architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels", "normalisation"),
    *("em_dtype", "em_range", "activation", "planes", "overlap", "trained_on", "validated_on", "datasets"),
)
_UNKNOWN = {
    "architecture": f"which network it is cannot be told from its tensors; one of {', '.join(ARCHITECTURES)}",
    "arguments": "the arguments the network was built with",
    "classes": "the class that each output channel predicts, in their order; null for one nobody wants",
    "voxel_size_nm": "the voxel size it was trained at, in nanometres: one number, or z, y, x",
    "patch_voxels": "the patch it was trained with, in voxels: one number, or z, y, x",
    "normalisation": "grey values / 255 is a guess; say what training did to them",
    "em_dtype": "type of the EM it was trained on, such as uint8; its lowest and highest value under em_range",
    "activation": "sigmoid is a guess; softmax or none if training ended otherwise",
    "trained_on": "the crops it was trained on, so that scores on them are told apart",
}
_TOLD = (
    *("architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels", "activation"),
    "normalisation",
)
"""Keys that need no person where something tells them."""

_PLANES = "a 2D network: zyx averages slices across each axis, z runs it over those in y and x alone"

# What people call these things in the hyper-parameters that Lightning saves.
_SETTINGS = {
    "classes": ("classes", "class_names", "labels", "label_names"),
    "patch_voxels": ("patch_voxels", "patch_size", "roi_size", "input_shape", "crop_size"),
    "voxel_size_nm": ("voxel_size_nm", "voxel_size", "resolution_nm", "resolution", "spacing"),
    "activation": ("activation",),
}


@dataclass(frozen=True)
class Draft:
    """Values by key of a card, and for those that need a person, why."""

    path: Path
    values: Mapping[str, Any]
    asks: Mapping[str, str]

    def text(self) -> str:
        """The card as YAML, a comment on each line that needs a person."""
        lines = []
        for line in dump_yaml({key: self.values.get(key) for key in self._keys()}).splitlines():
            key = line.partition(":")[0]
            if key in self.asks:
                lines.append(f"{TO_BE_FILLED} {self.asks[key]}")
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _keys(self) -> list[str]:
        return [key for key in KEYS if key != "planes" or key in self.values]

    def questions(self, file: Path) -> list[str]:
        """For each line of the draft, written as ``file``, that needs a person: its place and what to say."""
        lines = self.text().splitlines()
        questions = []
        for key, why in self.asks.items():
            number = next(n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
            questions.append(f"{file}:{number}: {key}: {why}")
        return questions


def draft_card(path: Path, weights_key: str | None = None) -> Draft:
    """The draft for a checkpoint, nnU-Net folder or MONAI bundle; ``weights_key`` as in ``checkpoint.read``.

    Raises CheckpointError if it cannot be read.
    """
    path = Path(path)
    tensors = read(path, weights_key)
    tensors = replace(tensors, values=unwrapped(tensors.values))
    values: dict[str, Any] = {"name": _name(path), "overlap": 0.5}
    asks = dict(_UNKNOWN)
    results, folder = nnunet.ResultsFolder.around(path), monai_bundle.around(path)
    if results is not None:
        values |= results.card_values()
        asks = {"trained_on": _UNKNOWN["trained_on"], **results.unsure()}
    elif folder is not None:
        values |= monai_bundle.card_values(folder)
    questions: dict[str, str] = {}
    if "architecture" not in values:
        found, questions = _network(tensors)
        values |= found
    if results is None:
        _fill(values, _settings(tensors))
        if folder is None:
            beside, of_these = toolkit_folder.card_values(path)
            _fill(values, beside)
            questions |= of_these
        for key in _TOLD:
            whole = key != "arguments" or None not in (values.get(key) or {}).values()
            if whole and _is_filled(values.get(key)):
                asks.pop(key, None)
        asks |= questions
    if "planes" in values and results is None:
        asks["planes"] = _PLANES
    values.setdefault("normalisation", {"subtract": 0.0, "divide": 255.0})
    values.setdefault("activation", "sigmoid")
    if not any(isinstance(values["normalisation"].get(key), str) for key in ("subtract", "divide")):
        asks.setdefault("em_dtype", _UNKNOWN["em_dtype"])
    for key in ("trained_on", "validated_on", "datasets"):
        values.setdefault(key, [])
    in_order = {key: one_line(asks[key], 1000) for key in KEYS if key in asks}
    return Draft(path, values, in_order)


def _network(tensors: Tensors) -> tuple[dict[str, Any], dict[str, str]]:
    """What tensors and settings tell of the network, and by key what of it a person must say."""
    found, questions = mednext_checkpoint.described_by(tensors)
    if found:
        return found, questions
    toolkit = toolkit_checkpoint.described_by(tensors)
    if toolkit.values:
        return toolkit.values, toolkit.asks
    return (described_by(tensors) if tensors.settings else {}), {}


def _fill(values: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Add what is said to what is not filled yet; of classes as many as the network has channels."""
    channels = len(values.get("classes") or ())
    for key, value in said.items():
        wrong = key == "classes" and channels and len(value) != channels
        if not wrong and not _is_filled(values.get(key)):
            values[key] = value


def _is_filled(value: Any) -> bool:
    return value is not None and not (isinstance(value, list) and set(value) == {None})


def _name(path: Path) -> str:
    results = nnunet.ResultsFolder.around(path)
    stem = results.folder.parent.name if results is not None else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-_.") or "model"


def _settings(tensors: Tensors) -> dict[str, Any]:
    """What the hyper-parameters in a checkpoint say of a card's keys, under the names people use."""
    values: dict[str, Any] = {}
    for key, names in _SETTINGS.items():
        value = _setting(tensors.settings, key, names)
        if value is not None:
            values[key] = [known_class(name) for name in value] if key == "classes" else value
    return values


def _setting(settings: Mapping[str, Any], key: str, names: tuple[str, ...]) -> Any:
    """What settings say under one of the names; what mappings in them say (but of the activation) where it is one."""
    top = _listed(next((settings[name] for name in names if name in settings), None))
    if _IS_VALUE[key](top):
        return top
    within = islice(mappings(settings), 1, _MAX_MAPPINGS) if key != "activation" else ()
    given = [_listed(place[name]) for place in within for name in names if name in place]
    valid = [value for value in given if _IS_VALUE[key](value)]
    return valid[0] if valid and all(value == valid[0] for value in valid) else None


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_MAX_MAPPINGS = 100


def _is_size(value: object, *, whole: bool) -> bool:
    """Whether it is a number above 0, or one for each axis."""
    numbers = value if isinstance(value, list) and len(value) == 3 else [value]
    kinds = int if whole else int | float
    return all(isinstance(n, kinds) and not isinstance(n, bool) and 0 < n < _LARGE for n in numbers)


_LARGE = 1e6
"""No patch has as many voxels along an axis, and no voxel is as large."""

_IS_VALUE: dict[str, Callable[[Any], bool]] = {
    "classes": lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= networks.MAX_CHANNELS
        and all(isinstance(name, str) and len(name) <= 1000 for name in value)
    ),
    "patch_voxels": lambda value: _is_size(value, whole=True),
    "voxel_size_nm": lambda value: _is_size(value, whole=False),
    "activation": lambda value: value in ("sigmoid", "softmax", "none"),
}
