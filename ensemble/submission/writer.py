"""A submission as we write it: one Zarr v2 store, a plain array per crop and class, packed into one zip."""

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from ensemble.core import Target
from ensemble.storage import ChunkedArray, Encoding
from ensemble.support import SubmissionError, is_disk_full, replacing, write_text

OnProgress = Callable[[int, int], None]
"""Called with how much is done and how much there is to do."""

_ENCODING = Encoding(numcodecs.Zstd(level=1, checksum=True), {"id": "zstd", "level": 1})
"""Readers need not know of the checksum: it is part of each frame."""

_STORED_FILE = re.compile(r"\.zarray|\.zattrs|\d+(\.\d+)*")


def create_array(root: Path, target: Target, name: str, dtype: np.dtype[Any], *, keep: bool = False) -> ChunkedArray:
    """The array of one class of one crop under ``root``, all background, replacing what was there.

    It lies on the target's grid exactly; chunks that stay background are never written. With ``keep`` the chunks that
    are there stay.
    """
    grid = target.grid
    attributes = {
        "voxel_size": list(grid.voxel_size_nm),
        "translation": list(grid.origin_nm),
        "shape": list(grid.shape),
    }
    made = ChunkedArray.kept if keep else ChunkedArray.create
    return made(Path(root) / target.group / name, grid.shape, dtype, _ENCODING, attributes)


def write_group_files(root: Path, targets: Sequence[Target], attributes: Mapping[str, Any]) -> None:
    """Make ``root`` a Zarr v2 group with ``attributes`` that holds a group for every target."""
    for folder in (Path(root), *(Path(root) / target.group for target in targets)):
        _write_json(folder / ".zgroup", {"zarr_format": 2})
    _write_json(Path(root) / ".zattrs", attributes)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(data, indent=2) + "\n")


def pack(
    root: Path, zip_path: Path, targets: Sequence[Target], progress: OnProgress = lambda done, total: None
) -> None:
    """The targets' arrays under ``root`` as one zip; the same store gives the same bytes.

    Whatever else lies under ``root`` stays out. ``zip_path`` changes only when the new zip is complete and
    on disk. Raises SubmissionError when an array is missing or the disk is full.
    """
    root, zip_path = Path(root), Path(zip_path)
    names = sorted(_names_to_pack(root, targets))
    try:
        with replacing(zip_path) as partial, partial.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
                for done, name in enumerate(names, start=1):
                    packed.writestr(_member(name), (root / name).read_bytes())
                    progress(done, len(names))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if is_disk_full(error):
            raise SubmissionError(
                f"{zip_path}: the disk is full; free some space and run again (an older zip is unchanged)"
            ) from error
        raise SubmissionError(f"{zip_path}: cannot pack {root}: {error.strerror or error}") from error


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
