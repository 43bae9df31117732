"""What lies beside a checkpoint of the challenge's toolkit: its configuration, read and never run, and its data split.

The toolkit writes ``checkpoints/NAME_EPOCH.pth`` in the folder of a configuration, which is a Python file that assigns
values to names, and of ``datasplit.csv``.
"""

import ast
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from registry.description_files import known_class

MAX_BYTES = 1 << 20
MAX_ROWS = 100_000
SPLIT = "datasplit.csv"
_CROP = re.compile(r"crop(\d+)(?:/|\\|$)")
_DATASET = re.compile(r"([^/\\]+)\.(?:zarr|n5)(?:/|\\|$)")
_ARRAY = "input_array_info"
_GREY = ("train_raw_value_transforms", "val_raw_value_transforms")
_LOSS = "criterion"
_DEFAULT_CLASSES = ["nuc", "er"]
"""What the toolkit trains for where a configuration says no classes."""


def card_values(checkpoint: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What the folder says of a card's keys, and by key what of it a person must look at.

    Only values that are written out are taken. Where several configurations could be the checkpoint's, none is.
    """
    folder = next((f for f in list(checkpoint.absolute().parents)[:2] if any(_configurations(f))), None)
    values: dict[str, Any] = {}
    asks: dict[str, str] = {}
    if folder is not None:
        named = _of(checkpoint, list(_configurations(folder)))
        if len(named) == 1:
            values, asks = _configured(named[0])
    split = next((f / SPLIT for f in list(checkpoint.absolute().parents)[:2] if (f / SPLIT).is_file()), None)
    if split is not None:
        crops = _split(split)
        values |= crops
        if crops:
            asks["trained_on"] = f"taken from {SPLIT}; look whether it is the one that this training read"
    return values, asks


def _configurations(folder: Path) -> Iterator[dict[str, Any]]:
    """What each of the toolkit's configurations in a folder assigns; None for what is not written out."""
    for file in sorted(folder.glob("*.py"))[:100]:
        assigned = _assigned(file)
        if _ARRAY in assigned:
            yield assigned


def _assigned(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_BYTES or _ARRAY.encode() not in (content := file.read_bytes()):
            return {}
        body = ast.parse(content).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    assigned: dict[str, Any] = {}
    for line in body:
        if isinstance(line, ast.Assign):
            names = [target.id for target in line.targets if isinstance(target, ast.Name)]
            assigned |= dict.fromkeys(names, _literal(line.value))
    return assigned


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _of(checkpoint: Path, configurations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose ``model_name`` the checkpoint is called after; all where none is."""
    name = checkpoint.stem.rpartition("_")[0]
    named = [given for given in configurations if given.get("model_name") == name]
    return named or [given for given in configurations if not isinstance(given.get("model_name"), str)]


def _configured(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    asks: dict[str, str] = {}
    classes = given.get("classes", _DEFAULT_CLASSES)
    if classes is None:
        asks["classes"] = (
            "the configuration computes its classes; name each channel's, in their order (get_tested_classes() gives"
            " those of the toolkit's tested_classes.csv as it was then)"
        )
    if isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes):
        values["classes"] = [known_class(name) for name in classes]
    array = given[_ARRAY] if isinstance(given[_ARRAY], dict) else {}
    shape, scale = array.get("shape"), array.get("scale")
    if _is_triple(shape, int):
        edge = max(shape)
        values["patch_voxels"] = [edge] * 3 if 1 in shape else list(shape)
    if _is_triple(scale, int | float):
        values["voxel_size_nm"] = [float(n) for n in scale]
    if any(name in given for name in _GREY):
        asks["normalisation"] = f"the configuration has its own {_GREY[0]}; say what they do to grey values"
    else:
        values["normalisation"] = {"subtract": 0.0, "divide": 255.0}
    if _LOSS in given:
        asks["activation"] = "sigmoid is a guess: the configuration has a criterion of its own"
    else:
        values["activation"] = "sigmoid"
    return values, asks


def _is_triple(value: Any, kind: Any) -> TypeGuard[Sequence[Any]]:
    return (
        isinstance(value, tuple | list)
        and len(value) == 3
        and all(isinstance(n, kind) and not isinstance(n, bool) and 0 < n <= 4096 for n in value)
    )


def _split(path: Path) -> dict[str, Any]:
    """Crops and data sets by use."""
    used: dict[str, list[str]] = {"train": [], "validate": []}
    datasets: list[str] = []
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            for row, _ in zip(csv.reader(file), range(MAX_ROWS), strict=False):
                crop, dataset = _CROP.search(row[-1] if row else ""), _DATASET.search("/".join(row[3:4]))
                if crop is None or row[0] not in used:
                    continue
                used[row[0]].append(crop[1])
                datasets += [dataset[1]] if dataset else []
    except (OSError, ValueError, csv.Error):
        return {}
    trained, validated = (list(dict.fromkeys(used[use])) for use in ("train", "validate"))
    if not trained:
        return {}
    return {"trained_on": trained, "validated_on": validated, "datasets": list(dict.fromkeys(datasets))}
