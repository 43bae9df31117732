"""Whether a submission's files, metadata and attributes are as the challenge asks; no voxel is read."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.core import Target, is_instance, official_departure
from ensemble.submission.archive import Archive
from ensemble.submission.reader import Submission
from ensemble.submission.stored_array import StoredArray, read_metadata
from ensemble.support import SubmissionError, counted, nearest, plain_line

MAX_STORE_BYTES = 50 * 2**30
MANY_PLACES = 4
_CROP = re.compile(r"(?P<folder>(?:[^/]+/)*?)crop[^/]+/[^/]+/(\.zarray|\.zgroup|zarr\.json)")
_TOO_DEEP = "is a store inside a folder; zip what is in the folder: one store, its .zgroup and crops at the root"


@dataclass
class FaultNotes:
    """What is found on the way, a line each; places are told without the submission's own path."""

    path: Path
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def folded(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Faults and warnings; what is the same in many places is told once."""
        return _folded(self.faults), _folded(self.warnings)

    def error(self, error: SubmissionError) -> None:
        """Note what was raised as a fault."""
        self.faults.append(str(error).removeprefix(f"{self.path}: "))


def _folded(lines: Iterable[str]) -> tuple[str, ...]:
    """Lines "place: what", those that say the same of many places as one."""
    places: dict[str, list[str]] = {}
    for line in map(plain_line, lines):
        place, colon, what = line.partition(": ")
        places.setdefault(f": {what}" if colon else line, []).append(place if colon else "")
    return tuple(f"{place}{what}" for what, where in places.items() for place in _listed(where))


def _listed(places: list[str]) -> list[str]:
    if len(places) <= MANY_PLACES:
        return places
    shown, more = places[: MANY_PLACES - 1], len(places) - MANY_PLACES + 1
    return [f"{', '.join(shown)} and {more:,} more"]


def find_store(members: Archive, notes: FaultNotes) -> Submission:
    """The store at the root or, as a fault, the only one inside a folder.

    Raises SubmissionError for a zip that holds nothing but another one.
    """
    notes.faults += members.refused
    size = sum(members.sizes.values())
    if size > MAX_STORE_BYTES:
        what = f"its files have {size:,} bytes where {MAX_STORE_BYTES:,} (50 GiB) are allowed"
        notes.faults.append(f"{what}; compress the chunks")
    submission = Submission(members)
    inner = [] if submission.is_store else _folders_of_crops(members)
    if inner == [""] or len(inner) > 1 or submission.is_store:
        _note_group(submission, "", notes)
    elif inner:
        submission = Submission(members, root=inner[0])
        notes.faults.append(f"{inner[0][:-1]}: {_TOO_DEEP}")
    else:
        _refuse_zip_in_zip(members)
        _note_group(submission, "", notes)
    others = [crop for crop in submission.crops if crop.endswith(".zarr")]
    notes.faults += [f"{other}: {_TOO_DEEP}" for other in others]
    stray = sorted(set(submission.files()) - {".zgroup", ".zattrs", "zarr.json"})
    notes.warnings += [f"{name}: is no part of the store" for name in stray]
    return submission


def _folders_of_crops(members: Archive) -> list[str]:
    """Folders that hold crops of arrays or of groups, each as "" or "name/"."""
    matches = map(_CROP.fullmatch, members.sizes)
    return sorted({match["folder"] for match in matches if match})


def _refuse_zip_in_zip(members: Archive) -> None:
    zips = [name for name in members.sizes if name.lower().endswith(".zip")]
    if zips:
        raise SubmissionError(f"{members.place}: holds another zip, {zips[0]}; check and upload that one")


def _note_group(submission: Submission, crop: str, notes: FaultNotes) -> None:
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
            found = read_metadata(submission.members, files[".zgroup"]).get("zarr_format")
        except SubmissionError as error:
            notes.error(error)
            return
        if found != 2:
            notes.faults.append(f"{place}: its .zgroup says zarr_format {found!r}; write Zarr v2")


def open_target(submission: Submission, target: Target, notes: FaultNotes) -> dict[str, StoredArray]:
    """The target's arrays that can be decoded, whatever else is wrong with them."""
    if target.group not in submission.crops:
        bare = f"; call the folder {target.crop} {target.group}" if target.crop in submission.crops else ""
        notes.faults.append(
            f"{target.group}: is missing, with all of its {counted(len(target.classes), 'array')}{bare}"
        )
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
        faults.append(f"has {counted(len(array.shape), 'axis', 'axes')} where three are expected: z, y, x")
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
    if not is_instance(name):
        return None if dtype.str == "|u1" else f"has dtype {dtype.str}; a semantic class is uint8, 0 or 1"
    if dtype.kind != "u":
        return f"has dtype {dtype.str}; ids are unsigned integers"
    return f"has dtype {dtype.str}; ids are little-endian" if dtype.str.startswith(">") else None


def _note_stray(array: StoredArray, notes: FaultNotes) -> None:
    if array.stray:
        count, first = len(array.stray), array.stray[0]
        notes.warnings.append(
            f"{array.place}: {counted(count, 'file is', 'files are')} no chunk of the array, such as {first}"
        )


def note_extras(submission: Submission, targets: Sequence[Target], notes: FaultNotes) -> None:
    """What the manifest does not ask for: an array is a fault, whatever is in it, any other file a warning."""
    asked = {target.group: set(target.classes) for target in targets}
    for crop in submission.crops:
        if crop.endswith(".zarr") or f"crop{crop}" in asked:  # told already
            continue
        known = {".zgroup", ".zattrs", ".zarray", "zarr.json"}
        notes.warnings += [
            f"{crop}/{file}: is no part of the store" for file in sorted(set(submission.files(crop)) - known)
        ]
        for name in sorted(set(submission.names(crop)) - asked.get(crop, set())):
            if submission.is_dataset(crop, name):
                notes.faults.append(f"{crop}/{name}: {_why_not_asked(crop, name, asked)}")
            else:
                notes.warnings.append(f"{crop}/{name}: is no part of the store")


def _why_not_asked(crop: str, name: str, asked: Mapping[str, set[str]]) -> str:
    """An array that the truth may hold and the manifest lacks ends the whole evaluation."""
    departed = official_departure()
    if f"{crop}/{name}" in departed.places:
        return f"left the manifest on {departed.day}, and as much as one can end the whole evaluation; leave it out"
    hint = nearest(name, asked[crop] - {name}) if crop in asked else ""
    what = "has no such array" if crop in asked else "has no such crop"
    return f"the manifest {what}, and as much as one can end the whole evaluation; leave it out{hint}"
