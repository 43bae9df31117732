"""Whether a submission's files, metadata and attributes are as the challenge asks; no voxel is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.core import classes as taxonomy
from ensemble.core.changes import Changed
from ensemble.core.contradictions import OTHERWISE, Broken, is_relation
from ensemble.core.manifest import Target
from ensemble.submission.archive import Members
from ensemble.submission.stored_array import StoredArray, read_json
from ensemble.submission.writer import Submission
from ensemble.support.errors import SubmissionError

MAX_STORE_BYTES = 50 * 2**30

CONSISTENCIES = ("none", "report", "joint")
"""What a builder may have promised; without a promise a submission is held to "joint"."""


@dataclass
class Notes:
    """What is found on the way, a line each; places are told without the submission's own path."""

    path: Path
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, error: SubmissionError) -> None:
        """Note what was raised as a fault."""
        self.faults.append(str(error).removeprefix(f"{self.path}: "))


@dataclass(frozen=True)
class Claims:
    """What the root's attributes say of the whole.

    ``unclaimed``: crop -> classes that were written as zeros on purpose. ``decoding``: crop -> class ->
    voxels it has "alone", that joint decoding "removed" and "added", and where most changed (see ``Changed``).
    ``before``: crop -> the contradictions that joint decoding mended.
    """

    consistency: str = "joint"
    unclaimed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    decoding: Mapping[str, Mapping[str, Changed]] = field(default_factory=dict)
    before: Mapping[str, Broken] = field(default_factory=dict)


def find_store(members: Members, notes: Notes) -> Submission:
    """The store at the root or, as a fault, the only one inside a folder."""
    notes.faults += members.refused
    size = sum(members.sizes.values())
    if size > MAX_STORE_BYTES:
        what = f"its files have {size:,} bytes where {MAX_STORE_BYTES:,} (50 GiB) are allowed"
        notes.faults.append(f"{what}; compress the chunks")
    submission = Submission(members)
    stores = [crop for crop in submission.crops if crop.endswith(".zarr")]
    what = "is a store inside a folder; leave one store, its .zgroup and crops at the root"
    notes.faults += [f"{store}: {what}" for store in stores]
    if not submission.is_store and len(stores) == 1:
        submission = Submission(members, root=f"{stores[0]}/")
    _note_group(submission, "", notes)
    stray = sorted(set(submission.files()) - {".zgroup", ".zattrs", "zarr.json"})
    notes.warnings += [f"{name}: is no part of the store" for name in stray]
    return submission


def _note_group(submission: Submission, crop: str, notes: Notes) -> None:
    """A fault unless the root, or a crop, is a Zarr v2 group."""
    files, place = submission.files(crop), crop or "the root"
    if "zarr.json" in files:
        notes.faults.append(f"{place}: is Zarr v3; write Zarr v2")
    elif ".zarray" in files:
        notes.faults.append(f"{place}: is an array; write a group of arrays")
    elif ".zgroup" not in files:
        notes.faults.append(f"{place}: has no .zgroup; write one that says zarr_format 2")
    else:
        try:
            found = read_json(submission.members, files[".zgroup"]).get("zarr_format")
        except SubmissionError as error:
            notes.error(error)
            return
        if found != 2:
            notes.faults.append(f"{place}: its .zgroup says zarr_format {found!r}; write Zarr v2")


def read_claims(submission: Submission, notes: Notes) -> Claims:
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
    if not _maps_to(before, _is_broken):
        notes.faults.append("root attribute contradictions_before is not voxels and relations for each crop")
        before = {}
    return Claims(
        consistency,
        {crop: frozenset(names) for crop, names in unclaimed.items()},
        {crop: {name: _changed(said) for name, said in classes.items()} for crop, classes in decoding.items()},
        {crop: Broken(said["voxels"], said["relations"]) for crop, said in before.items()},
    )


def _maps_to(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(fits(inner) for inner in value.values())


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_decoding(value: Any) -> bool:
    return _maps_to(value, _is_changed) and value.keys() <= taxonomy.classes().keys()


def _is_changed(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_count(value.get(key)) for key in ("alone", "removed", "added")):
        return False
    place, most = value.get("most_at_voxels", [0, 0, 0]), value.get("most_voxels", 0)
    placed = isinstance(place, list) and len(place) == 3 and all(map(_is_count, place))
    return placed and _is_count(most) and most <= value["removed"] + value["added"]


def _changed(said: Mapping[str, Any]) -> Changed:
    """What ``_is_changed``."""
    at = tuple(said.get("most_at_voxels", (0, 0, 0)))
    return Changed(said["alone"], said["removed"], said["added"], said.get("most_voxels", 0), at)


def _is_broken(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_count(value.get("voxels")):
        return False
    relations = value.get("relations")
    if not _maps_to(relations, _is_count) or not all(map(_is_known, relations)):
        return False
    return all(voxels <= value["voxels"] for voxels in relations.values())


def _is_known(words: str) -> bool:
    return words == OTHERWISE or is_relation(words)


def open_target(submission: Submission, target: Target, notes: Notes) -> dict[str, StoredArray]:
    """The target's arrays that can be decoded, whatever else is wrong with them."""
    if target.group not in submission.crops:
        notes.faults.append(f"{target.group}: is missing, with all of its {len(target.classes)} arrays")
        return {}
    _note_group(submission, target.group, notes)
    arrays = {}
    for name in target.classes:
        try:
            array = arrays[name] = submission.array(target.group, name)
        except SubmissionError as error:
            notes.error(error)
            continue
        notes.faults += [f"{array.place}: {what}" for what in metadata_faults(array, target, name)]
        _note_stray(array, notes)
    return arrays


def metadata_faults(array: StoredArray, target: Target, name: str) -> list[str]:
    """In what an array's metadata differ from what the manifest asks for."""
    grid, faults = target.grid, []
    if len(array.shape) != 3:
        faults.append(f"has {len(array.shape)} axes where three are expected: z, y, x")
    elif array.shape != grid.shape:
        faults.append(f"has shape {list(array.shape)} where the manifest has {list(grid.shape)}")
    expected = {"voxel_size": grid.voxel_size_nm, "translation": grid.origin_nm, "shape": grid.shape}
    for key, values in expected.items():
        if key not in array.attributes:
            faults.append(f"its attributes lack {key}; write {list(values)}")
        elif array.attributes[key] != list(values):
            given = array.attributes[key]
            faults.append(f"its attribute {key} is {given} where the manifest has {list(values)}")
    if array.fill_value is None or array.fill_value != 0:
        faults.append(f"its fill_value is {array.fill_value}; absent chunks must be background, 0")
    what = _dtype_fault(array, name)
    return [*faults, what] if what else faults


def _dtype_fault(array: StoredArray, name: str) -> str | None:
    dtype = array.dtype
    if not taxonomy.is_instance(name):
        return None if dtype.str == "|u1" else f"has dtype {dtype.str}; a semantic class is uint8, 0 or 1"
    if dtype.kind != "u":
        return f"has dtype {dtype.str}; ids are unsigned integers"
    return f"has dtype {dtype.str}; ids are little-endian" if dtype.str.startswith(">") else None


def _note_stray(array: StoredArray, notes: Notes) -> None:
    if array.stray:
        count, first = len(array.stray), array.stray[0]
        notes.warnings.append(f"{array.place}: {count:,} files are no chunk of the array, such as {first}")


def open_extras(submission: Submission, targets: Sequence[Target], notes: Notes) -> list[StoredArray]:
    """Arrays that the manifest does not ask for: one that cannot be read still fails the whole submission."""
    asked = {target.group: set(target.classes) for target in targets}
    extras = []
    for crop in submission.crops:
        if crop.endswith(".zarr"):
            continue
        if crop not in asked:
            notes.warnings.append(f"{crop}: the manifest has no such crop")
        notes.warnings += [
            f"{crop}/{file}: is no part of the store"
            for file in sorted(set(submission.files(crop)) - {".zgroup", ".zattrs", ".zarray", "zarr.json"})
        ]
        for name in submission.names(crop):
            if name in asked.get(crop, ()):
                continue
            if crop in asked:
                notes.warnings.append(f"{crop}/{name}: the manifest has no such array")
            if ".zarray" in submission.files(crop, name):
                try:
                    extras.append(submission.array(crop, name))
                except SubmissionError as error:
                    notes.error(error)
    return extras
