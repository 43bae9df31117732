"""Files that lie beside a checkpoint and describe it: JSON, and what their labels mean here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble.core import all_classes
from ensemble.support import CheckpointError

MAX_BYTES = 16 << 20
_WORDS = {
    "mitochondria": "mito",
    "mitochondrion": "mito",
    "nucleus": "nuc",
    "nuclei": "nuc",
    "vesicle": "ves",
    "vesicles": "ves",
    "endoplasmic reticulum": "er",
    "golgi apparatus": "golgi",
    "lysosome": "lyso",
    "peroxisome": "perox",
    "endosome": "endo",
    "lipid droplet": "ld",
    "microtubule": "mt",
    "plasma membrane": "pm",
    "extracellular space": "ecs",
    "cytosol": "cyto",
}


def known_class(label: Any) -> str | None:
    """The challenge's class that a label means; None for background and all that is none."""
    word = " ".join(str(label).lower().replace("_", " ").replace("-", " ").split())
    name = word.replace(" ", "_")
    return name if name in all_classes() else _WORDS.get(word)


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The keys of a JSON file. Raises CheckpointError for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path}: longer than any description of a network; is it the right file?")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read it: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {' '.join(str(error).split())[:100]}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: a {type(data).__name__} where keys are expected; copy the file again")
    return data
