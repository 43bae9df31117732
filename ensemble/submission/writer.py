"""A submission: one Zarr v2 store, a plain array per crop and class, in one zip.

Written as a folder and packed when complete; read from the zip alone, or from the folder, block by block.
"""

import errno
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from ensemble.core.grid import Slices
from ensemble.core.manifest import Target
from ensemble.storage.chunked_array import Chunked
from ensemble.submission.archive import Members, open_members
from ensemble.submission.stored_array import StoredArray, open_array, read_json
from ensemble.support.errors import SubmissionError, suggestion

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""

_CODEC = numcodecs.Zstd(level=1, checksum=True)
_STORED_CODEC = {"id": "zstd", "level": 1}
"""Readers need not know of the checksum: it is part of each frame."""

_STORED_FILE = re.compile(r"\.zarray|\.zattrs|\d+(\.\d+)*")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def create_array(root: Path, target: Target, name: str, dtype: np.dtype) -> Chunked:
    """The array of one class of one crop under ``root``, all background, replacing what was there.

    It lies on the target's grid exactly; chunks that stay background are never written.
    """
    grid = target.grid
    attributes = {
        "voxel_size": list(grid.voxel_size_nm),
        "translation": list(grid.origin_nm),
        "shape": list(grid.shape),
    }
    return Chunked.create(Path(root) / target.group / name, grid.shape, dtype, _CODEC, _STORED_CODEC, attributes)


def reopen_array(root: Path, target: Target, name: str) -> Chunked:
    """The array of one class of one crop, as ``create_array`` and what was written since left it."""
    return Chunked.open(Path(root) / target.group / name, _CODEC)


def write_group_files(root: Path, targets: Sequence[Target], attributes: Mapping[str, Any]) -> None:
    """Make ``root`` a Zarr v2 group with ``attributes`` that holds a group for every target."""
    for folder in (Path(root), *(Path(root) / target.group for target in targets)):
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / ".zgroup", {"zarr_format": 2})
    _write_json(Path(root) / ".zattrs", attributes)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(data, indent=2) + "\n")
    partial.replace(path)


def pack(root: Path, zip_path: Path, targets: Sequence[Target], progress: Progress = lambda done, total: None) -> None:
    """The targets' arrays under ``root`` as one zip; the same store gives the same bytes.

    Whatever else lies under ``root`` stays out. ``zip_path`` changes only when the new zip is complete and
    on disk. Raises SubmissionError when an array is missing or the disk is full.
    """
    root, zip_path = Path(root), Path(zip_path)
    names = sorted(_names_to_pack(root, targets))
    partial = zip_path.with_name(f".{zip_path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
                for done, name in enumerate(names, start=1):
                    packed.writestr(_member(name), (root / name).read_bytes())
                    progress(done, len(names))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(zip_path)
    except OSError as error:
        if error.errno in _FULL:
            raise SubmissionError(
                f"{zip_path}: the disk is full; free some space and run again (an older zip is unchanged)"
            ) from error
        raise SubmissionError(f"{zip_path}: cannot pack {root}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _names_to_pack(root: Path, targets: Sequence[Target]) -> Iterator[str]:
    groups = [".zgroup", ".zattrs", *(f"{target.group}/.zgroup" for target in targets)]
    arrays = [f"{target.group}/{name}" for target in targets for name in target.classes]
    for name in (*groups, *(f"{array}/.zarray" for array in arrays)):
        if not (root / name).is_file():
            raise SubmissionError(f"{root / name}: there is no such file, so the submission is not complete")
    yield from groups
    for array in arrays:
        # temporary files of an interrupted build lie beside the chunks
        yield from (f"{array}/{file}" for file in os.listdir(root / array) if _STORED_FILE.fullmatch(file))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


@dataclass(frozen=True)
class Submission:
    """The store that lies beneath ``root`` (empty, or a folder's name and "/") in ``members``.

    Crops go by the names of their groups: "crop557". Metadata is read when first asked for, voxels when
    read; safe to share between threads.
    """

    members: Members
    root: str = ""

    @classmethod
    def open(cls, path: Path) -> "Submission":
        """The submission in a zip or an unzipped folder. Raises SubmissionError when it is none or unsafe."""
        members = open_members(path)
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
        return read_json(self.members, files[".zattrs"]) if ".zattrs" in files else {}

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
        elif any(file.endswith((".zgroup", ".zarray")) for file in files):
            what = "is a group; write a plain array of that name"
        else:
            what = "has no .zarray"
        raise SubmissionError(f"{self.members.place}: {place}: {what}")

    def read(self, crop: str, name: str, block: Slices) -> np.ndarray:
        """A block of one array, dtype kept, perhaps read only. Raises SubmissionError."""
        return self.array(crop, name).read(block)

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
