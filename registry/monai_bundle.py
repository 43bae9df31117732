"""MONAI bundles: a folder of configs and weights, of which only plain values are taken, never an expression."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble.support import CheckpointError, load_yaml
from registry.card import ARCHITECTURES
from registry.description_files import known_class, mapping, read_json

METADATA = "configs/metadata.json"
CONFIGS = tuple(
    f"configs/{name}.{suffix}" for name in ("inference", "train", "evaluate") for suffix in ("json", "yaml", "yml")
)
WEIGHTS_FILES = ("models/model.pt", "models/model.pth", "models/model.safetensors")


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is laid out as a MONAI bundle."""
    return (Path(folder) / METADATA).is_file()


def around(path: Path) -> Path | None:
    """The bundle that ``path`` is, or lies in as ``models/FILE``."""
    path = Path(path).absolute()
    return next((folder for folder in (path, path.parent.parent) if is_bundle(folder)), None)


def weights_file(folder: Path) -> Path:
    """The bundle's weights. Raises CheckpointError if it has none, or only a program."""
    file = next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder}: holds no {WEIGHTS_FILES[0]}; download the bundle with its weights")
    return file


def card_values(folder: Path) -> dict[str, Any]:
    """What the bundle says of a card's keys: network, patch, activation and names of channels, where plain."""
    values: dict[str, Any] = {}
    data_format = mapping(read_json(folder / METADATA).get("network_data_format"))
    inputs, outputs = mapping(data_format.get("inputs")), mapping(data_format.get("outputs"))
    patch = mapping(inputs.get("image")).get("spatial_shape")
    if isinstance(patch, list) and len(patch) == 3 and all(isinstance(n, int) for n in patch):
        values["patch_voxels"] = patch
    channels = mapping(mapping(outputs.get("pred")).get("channel_def"))
    if channels:
        values["classes"] = _in_order(channels)
    values |= _network(folder)
    return values


def _in_order(channels: Mapping[str, Any]) -> list[str | None]:
    """The class of each channel by its number; None where a number is left out, or is none."""
    numbered = {int(key): label for key, label in channels.items() if re.fullmatch(r"\d{1,3}", str(key))}
    return [known_class(numbered.get(i)) for i in range(max(numbered, default=-1) + 1)] or [None]


def _network(folder: Path) -> dict[str, Any]:
    for name in CONFIGS:
        config = _read(folder / name) if (folder / name).is_file() else {}
        definition = mapping(config.get("network_def"))
        architecture = str(definition.get("_target_", "")).rpartition(".")[2]
        if architecture in ARCHITECTURES:
            arguments = {key: _plain(value, config) for key, value in definition.items() if not key.startswith("_")}
            return {"architecture": architecture, "arguments": arguments}
    return {}


def _read(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.suffix == ".json" else mapping(load_yaml(path, CheckpointError)[0])


def _plain(value: Any, config: Mapping[str, Any]) -> Any:
    """A literal, or the literal that ``@key`` names; None for an expression, which would be code."""
    if isinstance(value, list):
        plain = [_plain(entry, config) for entry in value]
        return None if None in plain else plain
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for key in value[1:].replace("#", "::").split("::"):
            found = mapping(found).get(key)
        value = found
    return None if isinstance(value, str) and value.startswith(("$", "@", "%")) else value
