"""What a check found."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from ensemble.core import VoxelsZYX, is_instance
from ensemble.submission.made_for import CHALLENGE_MANIFEST

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
    at_voxels: VoxelsZYX


@dataclass
class DecodedClass:
    """Voxels a class has alone, what joint decoding took and gave over all crops, and where it changed most."""

    alone: int = 0
    removed: int = 0
    added: int = 0
    most_changed: ArrayPlace | None = None


@dataclass(frozen=True)
class ArrayContents:
    """What one array holds.

    Of instance classes whose objects can be counted also how many they are at least, how many the truth must have
    for them to count, how many reach the crop's border, and how many there are by the power of two that their
    size reaches; None otherwise.
    """

    dtype: str
    nonzero_voxels: int
    highest_id: int
    objects: int | None = None
    truth_objects_needed: int | None = None
    at_border: int | None = None
    sizes_log2_voxels: Mapping[str, int] | None = None

    def as_plain(self, name: str) -> dict[str, Any]:
        """As a row of check.json, ``name`` being the class: without what is not known.

        An instance class always tells its ``objects`` and ``truth_objects_needed``, null where not known.
        """
        always = ("objects", "truth_objects_needed") if is_instance(name) else ()
        return {key: value for key, value in asdict(self).items() if value is not None or key in always}


@dataclass(frozen=True)
class CheckReport:
    """What a check found; crops by group name ("crop557").

    ``faults`` make the submission, or part of it, worthless; ``warnings`` are worth a look. ``made_for`` says
    which manifest asks for the arrays that are there. ``empty`` lists
    arrays without a nonzero voxel. ``arrays``: crop -> class -> what is in it.
    ``violations``: crop -> voxels whose set of claimed classes contradicts itself; ``violations_before``: the
    same of each class alone, p > t, where joint decoding says so. ``relations``: what is broken ("mito_mem outside
    mito") -> voxels over all crops. ``decoding``: by class.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    made_for: str
    empty: tuple[str, ...]
    arrays: Mapping[str, Mapping[str, ArrayContents]]
    violations: Mapping[str, int]
    violations_before: Mapping[str, int]
    relations: Mapping[str, BrokenRelation]
    decoding: Mapping[str, DecodedClass]

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def is_official(self) -> bool:
        """Whether it holds the very arrays that the challenge asks for."""
        return self.made_for.startswith(f"{CHALLENGE_MANIFEST} (")

    def to_json(self) -> str:
        arrays = {
            crop: {name: contents.as_plain(name) for name, contents in classes.items()}
            for crop, classes in self.arrays.items()
        }
        return json.dumps({**asdict(self), "arrays": arrays}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "CheckReport":
        """The report that ``to_json`` wrote. Raises ValueError for anything else."""
        return TypeAdapter(cls).validate_json(text)
