"""What a submission's root attributes say of the whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ensemble.core import BROKEN_OTHERWISE, ClassChange, Violations, all_classes, is_relation, zyx
from ensemble.submission.layout import FaultNotes
from ensemble.submission.reader import Submission
from ensemble.support import SubmissionError

CONSISTENCIES = ("none", "report", "joint")
"""What a builder may have promised; without a promise a submission is held to "joint"."""


@dataclass(frozen=True)
class Claims:
    """What the root's attributes say of the whole.

    ``unclaimed``: crop -> classes that were written as zeros on purpose. ``decoding``: crop -> class ->
    what joint decoding changed.
    ``before``: crop -> the contradictions that joint decoding mended.
    """

    consistency: str = "joint"
    unclaimed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    decoding: Mapping[str, Mapping[str, ClassChange]] = field(default_factory=dict)
    before: Mapping[str, Violations] = field(default_factory=dict)


def read_claims(submission: Submission, notes: FaultNotes) -> Claims:
    """What the root's attributes say; what makes no sense is a fault and taken as not said."""
    try:
        attributes = submission.attributes
    except SubmissionError as error:
        notes.error(error)
        return Claims()
    consistency = attributes.get("consistency", "joint")
    if consistency not in CONSISTENCIES:
        known = ", ".join(CONSISTENCIES)
        notes.faults.append(f"root attribute consistency is {consistency!r}; known: {known}")
        consistency = "joint"
    unclaimed = attributes.get("unclaimed", {})
    if not _maps_to(unclaimed, _is_names):
        notes.faults.append("root attribute unclaimed is not a list of classes for each crop")
        unclaimed = {}
    decoding = attributes.get("decoding", {})
    if not _maps_to(decoding, _is_decoding):
        notes.faults.append("root attribute decoding is not alone, removed and added for each crop and class")
        decoding = {}
    before = attributes.get("contradictions_before", {})
    if not _maps_to(before, _is_violations):
        notes.faults.append("root attribute contradictions_before is not voxels and relations for each crop")
        before = {}
    return Claims(
        consistency,
        {crop: frozenset(names) for crop, names in unclaimed.items()},
        {crop: {name: _change(values) for name, values in classes.items()} for crop, classes in decoding.items()},
        {crop: Violations(values["voxels"], values["relations"]) for crop, values in before.items()},
    )


def _maps_to(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether it is a mapping all of whose values fit."""
    return isinstance(value, dict) and all(fits(inner) for inner in value.values())


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_decoding(value: Any) -> bool:
    return _maps_to(value, _is_change) and value.keys() <= all_classes().keys()


def _is_change(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_count(value.get(key)) for key in ("alone", "removed", "added")):
        return False
    place, most = value.get("most_at_voxels", [0, 0, 0]), value.get("most_voxels", 0)
    placed = isinstance(place, list) and len(place) == 3 and all(map(_is_count, place))
    return placed and _is_count(most) and most <= value["removed"] + value["added"]


def _change(values: Mapping[str, Any]) -> ClassChange:
    """What ``_is_change``."""
    at_voxels = zyx(values.get("most_at_voxels", (0, 0, 0)))
    return ClassChange(values["alone"], values["removed"], values["added"], values.get("most_voxels", 0), at_voxels)


def _is_violations(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_count(value.get("voxels")):
        return False
    relations = value.get("relations")
    if not isinstance(relations, dict) or not _maps_to(relations, _is_count) or not all(map(_is_known, relations)):
        return False
    return all(voxels <= value["voxels"] for voxels in relations.values())


def _is_known(words: str) -> bool:
    return words == BROKEN_OTHERWISE or is_relation(words)
