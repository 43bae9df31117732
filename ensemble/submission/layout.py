"""Whether a submission's files, metadata and attributes are as the challenge asks; no voxel is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ensemble.core import Target, is_instance
from ensemble.submission.archive import Archive
from ensemble.submission.reader import Submission
from ensemble.submission.stored_array import StoredArray, read_metadata
from ensemble.support import SubmissionError

MAX_STORE_BYTES = 50 * 2**30


@dataclass
class FaultNotes:
    """What is found on the way, a line each; places are told without the submission's own path."""

    path: Path
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, error: SubmissionError) -> None:
        """Note what was raised as a fault."""
        self.faults.append(str(error).removeprefix(f"{self.path}: "))


def find_store(members: Archive, notes: FaultNotes) -> Submission:
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
    if not is_instance(name):
        return None if dtype.str == "|u1" else f"has dtype {dtype.str}; a semantic class is uint8, 0 or 1"
    if dtype.kind != "u":
        return f"has dtype {dtype.str}; ids are unsigned integers"
    return f"has dtype {dtype.str}; ids are little-endian" if dtype.str.startswith(">") else None


def _note_stray(array: StoredArray, notes: FaultNotes) -> None:
    if array.stray:
        count, first = len(array.stray), array.stray[0]
        notes.warnings.append(f"{array.place}: {count:,} files are no chunk of the array, such as {first}")


def open_extras(submission: Submission, targets: Sequence[Target], notes: FaultNotes) -> list[StoredArray]:
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
