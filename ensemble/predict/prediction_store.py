"""Probabilities that a network predicted, kept by content: what is there is right, what is not is computed.

Builds share a folder of them. Who writes a prediction holds its claim, and no chunk that was there is ever away: what
is made anew is written over, so that nobody who reads it meanwhile takes a chunk that is not there for zeros.
"""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from ensemble.core import Box, Grid, nm_zyx, zyx
from ensemble.plan import STORED_PLANES, Job
from ensemble.predict.probabilities import StoredProbabilities
from ensemble.predict.stored_values import Channel
from ensemble.storage import Tissue, Volume, ZarrArray, open_node
from ensemble.support import (
    VolumeError,
    code_digest,
    digest,
    held_if_free,
    library_versions,
    read_sealed,
    refuse_links,
    write_sealed,
)

_COMPRESSOR = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)

_CONFIG: Any = {"write_empty_chunks": True}
"""So that a lost chunk is told from one of zeros."""

_CHUNK_FILE = re.compile(r"\d+(\.\d+){3}")

_CHECKED = [numcodecs.CRC32()]
"""A damaged chunk is told from a right one."""


def job_key(job: Job, tissue: Tissue, device_kind: str, precision: str, threads: int) -> str:
    """What decides a job's probabilities to the last bit; ``threads`` work on one operation of the network.

    Its first part is that of all jobs that differ only in the classes asked for; none changes another's values.
    """
    card = job.model.card
    shared = digest(
        {
            "weights": job.model.sha256,
            "card": card.model_dump(include={"architecture", "arguments", "classes", "normalisation", "activation"}),
            "tta": job.tta,
            "patches": (job.patch, job.starts, job.lattice, job.needed, job.stored),
            "em": (tissue.volume.identity(tissue.box), tissue.box, tissue.absent_is_zero, job.level_grid),
            "device": (device_kind, precision, threads),
            "code": code_digest("ensemble.predict"),
            "libraries": library_versions(),
        }
    )
    return f"{shared}-{digest(job.classes)[:16]}"


def shared_key(key: str) -> str:
    """What keys have in common that differ only in the classes asked for."""
    return key.partition("-")[0]


@dataclass(frozen=True)
class _WholeVolume(Volume):
    """A volume that was written in whole, its zeros too: a chunk that is not there is lost, and never read as zeros."""

    def read(self, box: Box, channel: int | None = None) -> NDArray[Any]:
        values = super().read(box, channel)
        for z, y, x in box.to_chunks(self.chunks).indices():
            name = f"{channel}.{z}.{y}.{x}"
            if not os.path.exists(f"{self.place}/{name}"):
                raise VolumeError(f"{self.place}: chunk {name} is not there any more; run the same command again")
        return values


@dataclass(frozen=True)
class StoredPrediction:
    """One job's stored array (classes, z, y, x), complete or begun.

    ``marker`` is the file that says how many planes are written for good, and what the array's metadata were.
    """

    array: ZarrArray
    marker: Path
    classes: tuple[str, ...]
    grid: Grid
    place: Path

    @property
    def done_planes(self) -> int:
        """Planes before this are written for good, every chunk of theirs is there: also those of zeros are written."""
        planes = _marked_planes(self.marker, self.place) or 0
        thick = self.array.chunks[1]
        counts = [-(-n // c) for n, c in zip(self.array.shape, self.array.chunks, strict=True)]
        there = Counter(int(f.name.split(".")[1]) for f in os.scandir(self.place) if _CHUNK_FILE.fullmatch(f.name))
        whole = math.prod(counts) // counts[1]
        lacking = (index * thick for index in range(counts[1]) if there[index] < whole)
        return min(planes, next(lacking, planes))

    @property
    def complete(self) -> bool:
        return self.done_planes == self.grid.shape[0]

    def forget(self) -> None:
        """Have it computed anew, unless somebody is at that already."""
        with claim(self.marker.parent, self.marker.stem) as free:
            if free:
                self.marker.unlink(missing_ok=True)

    def mark(self, planes: int) -> None:
        """Say that planes before ``planes`` are written for good."""
        write_sealed(self.marker, {"planes": planes, "metadata": _metadata_digest(self.place)})

    def of(self, name: str) -> StoredProbabilities:
        volume = _WholeVolume(self.array, self.grid, str(self.place))
        return StoredProbabilities(Channel(volume, self.classes.index(name)))


def claim(folder: Path, key: str) -> AbstractContextManager[bool]:
    """Whether no other process computes or takes away the prediction of that key; then none does while this lasts."""
    return held_if_free(folder / f"{key}.lock")


def complete_prediction(folder: Path, key: str, job: Job) -> StoredPrediction | None:
    """The complete array of a job, or one of more classes, under ``folder``; None where there is none."""
    mine = folder / f"{key}.planes"
    for marker in _first_then(mine, lambda: sorted(folder.glob(f"{shared_key(key)}-*.planes"))):
        stored = _stored(marker)
        if stored is not None and set(job.classes) <= set(stored.classes) and stored.complete:
            return stored
    return None


def _first_then(mine: Path, others: Callable[[], list[Path]]) -> Iterator[Path]:
    """``mine``, and only if that will not do the others."""
    yield mine
    yield from (path for path in others() if path != mine)


def open_prediction(folder: Path, key: str, job: Job) -> StoredPrediction:
    """The array of a job under ``folder``, to be written by who holds its claim: as it was left, or begun."""
    place, marker = folder / f"{key}.zarr", folder / f"{key}.planes"
    refuse_links(place, marker)
    begun = _stored(marker)
    if begun is not None and begun.array.shape == (len(job.classes), *job.stored.shape):
        writable = zarr.open_array(str(place), mode="r+").with_config(_CONFIG)
        return StoredPrediction(writable, marker, job.classes, job.stored, place)
    for file in (marker, place / ".zarray", place / ".zattrs"):
        file.unlink(missing_ok=True)
    new = zarr.create_array(
        str(place),
        shape=(len(job.classes), *job.stored.shape),
        chunks=stored_chunks(job),
        dtype=np.uint8,
        zarr_format=2,
        compressors=_COMPRESSOR,
        filters=_CHECKED,
        fill_value=0,
        config=_CONFIG,
        attributes=_attributes(job.classes, job.stored),
    )
    stored = StoredPrediction(new, marker, job.classes, job.stored, place)
    stored.mark(0)
    return stored


def stored_chunks(job: Job) -> tuple[int, int, int, int]:
    """Chunks of a stored probability array: one class, thin enough to complete soon."""
    z, y, x = (min(c, n) for c, n in zip((STORED_PLANES, 128, 128), job.stored.shape, strict=True))
    return 1, z, y, x


def _stored(marker: Path) -> StoredPrediction | None:
    """The array that a marker is of; None where marker or metadata are not as they were written."""
    place = marker.with_suffix(".zarr")
    if _marked_planes(marker, place) is None:
        return None
    try:
        array = open_node(place)
    except VolumeError:
        return None
    if not isinstance(array, zarr.Array):
        return None
    attributes: dict[str, Any] = dict(array.attrs)
    grid = Grid(zyx(array.shape[1:]), nm_zyx(attributes["voxel_size"]), nm_zyx(attributes["translation"]))
    return StoredPrediction(array, marker, tuple(attributes["classes"]), grid, place)


def _marked_planes(marker: Path, place: Path) -> int | None:
    """How many planes a marker says are done; None where it, or the metadata of its array, are not as written."""
    marked = read_sealed(marker)
    if not isinstance(marked, dict) or marked.get("metadata") != _metadata_digest(place):
        return None
    planes = marked.get("planes")
    return planes if isinstance(planes, int) and planes >= 0 else None


def _metadata_digest(place: Path) -> str | None:
    try:
        files = [(place / name).read_bytes() for name in (".zarray", ".zattrs")]
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(files)).hexdigest()


def _attributes(classes: Sequence[str], grid: Grid) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "voxel_size": list(grid.voxel_size_nm),
        "translation": list(grid.origin_nm),
        "scale": "probability = value / 255",
    }
