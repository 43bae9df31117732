"""What a check found."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

GENEROUS_TRUTH_OBJECTS = 100
"""An array that counts only if the truth holds more objects than this is worth a warning."""


NOTABLE_CHANGE = 0.05
"""Share of a class's voxels that joint decoding may remove or add without a warning."""


@dataclass
class BrokenRelation:
    """Voxels that break a relation, each class standing alone and as written."""

    before: int = 0
    written: int = 0


@dataclass(frozen=True)
class ArrayPlace:
    """Where in a crop: so many voxels in the tile that begins there."""

    crop: str
    voxels: int
    at_voxels: tuple[int, int, int]


@dataclass
class DecodedClass:
    """Voxels a class has alone, what joint decoding took and gave over all crops, and where it changed most."""

    alone: int = 0
    removed: int = 0
    added: int = 0
    most_changed: ArrayPlace | None = None


@dataclass(frozen=True)
class CheckReport:
    """What a check found; crops by group name ("crop557").

    ``faults`` make the submission, or part of it, worthless; ``warnings`` are worth a look. ``empty`` lists
    arrays without a nonzero voxel. ``arrays``: crop -> class -> dtype, nonzero_voxels, highest_id and, for
    instance classes, objects and truth_objects_needed (None where they cannot be counted), at_border and
    sizes_log2_voxels (objects by the power of two that their size reaches).
    ``violations``: crop -> voxels whose set of claimed classes contradicts itself; ``violations_before``: the
    same of each class alone, p > t, where joint decoding says so. ``relations``: what is broken ("mito_mem outside
    mito") -> voxels over all crops. ``decoding``: by class.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    empty: tuple[str, ...]
    arrays: Mapping[str, Mapping[str, Mapping[str, Any]]]
    violations: Mapping[str, int]
    violations_before: Mapping[str, int]
    relations: Mapping[str, BrokenRelation]
    decoding: Mapping[str, DecodedClass]

    @property
    def ok(self) -> bool:
        return not self.faults

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "CheckReport":
        """The report that ``to_json`` wrote. Raises ValueError for anything else."""
        return TypeAdapter(cls).validate_json(text)
