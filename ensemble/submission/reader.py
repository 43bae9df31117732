"""A submission, read from its zip, or from a folder, block by block."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ensemble.core import Box
from ensemble.submission.archive import Archive, open_archive
from ensemble.submission.stored_array import StoredArray, open_array, read_metadata
from ensemble.support import SubmissionError, suggestion


@dataclass(frozen=True)
class Submission:
    """The store that lies beneath ``root`` (empty, or a folder's name and "/") in ``members``.

    Crops go by the names of their groups: "crop557". Metadata is read when first asked for, voxels when
    read; safe to share between threads.
    """

    members: Archive
    root: str = ""

    @classmethod
    def open(cls, path: Path) -> "Submission":
        """The submission in a zip or an unzipped folder. Raises SubmissionError when it is none or unsafe."""
        members = open_archive(path)
        submission = cls(members)
        refused = members.refused or (() if submission.is_store else ("there is no .zgroup at its root",))
        if refused:
            members.close()
            raise SubmissionError(f"{path}: not a submission: {refused[0]}")
        return submission

    def __enter__(self) -> "Submission":
        return self

    def __exit__(self, *_: object) -> None:
        self.members.close()

    @property
    def is_store(self) -> bool:
        """Whether there is a Zarr v2 group."""
        return ".zgroup" in self._tree[""][""]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes: what the builder says of the whole."""
        files = self._tree[""][""]
        return read_metadata(self.members, files[".zattrs"]) if ".zattrs" in files else {}

    @property
    def crops(self) -> tuple[str, ...]:
        """All crops' groups, whether or not they are complete."""
        return tuple(sorted(crop for crop in self._tree if crop))

    def names(self, crop: str) -> tuple[str, ...]:
        """What a crop holds, whether or not it is an array."""
        return tuple(sorted(name for name in self._tree.get(crop, ()) if name))

    def files(self, crop: str = "", name: str = "") -> Mapping[str, str]:
        """Files of the root, of a crop's group or of an array: name beneath it -> member."""
        return self._tree.get(crop, {}).get(name, {})

    def is_dataset(self, crop: str, name: str) -> bool:
        """Whether it is an array or a group, of whatever version."""
        return any(file.endswith((".zarray", ".zgroup", "zarr.json")) for file in self.files(crop, name))

    def array(self, crop: str, name: str) -> StoredArray:
        """One array. Raises SubmissionError when it is missing or not one that can be decoded."""
        place, files = f"{crop}/{name}", self.files(crop, name)
        if ".zarray" in files:
            return open_array(self.members, place, files)
        if crop not in self.crops:
            what = f"is missing, as the whole crop is{suggestion(crop, self.crops)}"
        elif not files:
            what = "is missing; write it, be it all zeros"
        elif any(file.endswith("zarr.json") for file in files):
            what = "is Zarr v3; write Zarr v2"
        elif self.is_dataset(crop, name):
            what = f"is {self._kind_of_group(files)}; the server takes it for missing: write a plain array of that name"
        else:
            what = "has no .zarray"
        raise SubmissionError(f"{self.members.place}: {place}: {what}")

    def _kind_of_group(self, files: Mapping[str, str]) -> str:
        """ "an OME-NGFF group" where its attributes say so, else "a group"."""
        try:
            attributes = read_metadata(self.members, files[".zattrs"]) if ".zattrs" in files else {}
        except SubmissionError:
            return "a group"
        return "an OME-NGFF group" if "multiscales" in attributes else "a group"

    def read(self, crop: str, name: str, box: Box) -> NDArray[Any]:
        """A box of one array, dtype kept, perhaps read only. Raises SubmissionError."""
        return self.array(crop, name).read(box)

    @cached_property
    def _tree(self) -> dict[str, dict[str, dict[str, str]]]:
        """crop -> array -> file -> member; the empty name stands for the group itself."""
        tree: dict[str, dict[str, dict[str, str]]] = {"": {"": {}}}
        for member in self.members.sizes:
            if member.startswith(self.root):
                *above, rest = member.removeprefix(self.root).split("/", 2)
                crop, name = [*above, "", ""][:2]
                tree.setdefault(crop, {}).setdefault(name, {})[rest] = member
        return tree


def submission_at(path: str | Path) -> Path:
    """The zip in a build's folder, else ``path`` itself. Raises SubmissionError for a build whose zip is gone."""
    inside = Path(path) / "submission.zip"
    if not inside.is_file() and (Path(path) / "plan.json").is_file():
        raise SubmissionError(f"{path}: its submission.zip is not there any more; build it again")
    return inside if inside.is_file() else Path(path)
