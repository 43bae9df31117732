"""Probabilities that a network predicted, kept by content: what is there is right, what is not is computed.

Builds share a folder of them. Who writes a prediction holds its claim, and no chunk that was there is ever away: what
is made anew is written over, so that nobody who reads it meanwhile takes a chunk that is not there for zeros.
"""

import hashlib
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray

from ensemble.core import Box, Grid, nm_zyx, zyx
from ensemble.plan import STORED_CHUNK, Job, NetworkUse
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
    replacing,
    write_sealed,
)

_COMPRESSOR = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)

_CONFIG: Any = {"write_empty_chunks": True}
"""So that a lost chunk is told from one of zeros."""

_CHUNK_FILE = re.compile(r"\d+(\.\d+){3}")

_CHECKED = [numcodecs.CRC32()]
"""A damaged chunk is told from a right one."""


def job_key(job: Job, tissue: Tissue, device_kind: str, use: NetworkUse, threads: int) -> str:
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
            "em": (
                tissue.volume.identity(tissue.looked_at(job.level_box)),
                tissue.box,
                tissue.absent_is_zero,
                job.level_grid,
            ),
            "device": (device_kind, use.decides, threads),
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

    ``marker`` is the file that says which rows of chunks (z, y) are written for good, and what the array's metadata
    were.
    """

    array: ZarrArray
    marker: Path
    classes: tuple[str, ...]
    grid: Grid
    place: Path
    _marking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _rows(self) -> tuple[int, int]:
        """Chunks along z and y."""
        (_, z, y, _), (_, depth, height, _) = self.array.shape, self.array.chunks
        return math.ceil(z / depth), math.ceil(y / height)

    @property
    def _done(self) -> NDArray[np.bool_]:
        """Rows of chunks (z, y) that are written for good, and every chunk of theirs is there: those of zeros too."""
        marked = _marked(self.marker, self.place)
        if marked is None or marked.shape != self._rows:
            return np.zeros(self._rows, bool)
        names = (file.name for file in os.scandir(self.place) if _CHUNK_FILE.fullmatch(file.name))
        there = np.zeros(self._rows, int)
        for name in names:
            _, z, y, _ = map(int, name.split("."))
            if z < there.shape[0] and y < there.shape[1]:
                there[z, y] += 1
        whole = self.array.shape[0] * math.ceil(self.array.shape[3] / self.array.chunks[3])
        done: NDArray[np.bool_] = marked & (there == whole)
        return done

    def done_planes(self, box: Box) -> int:
        """How many planes of a box of rows of chunks, from its first, are written for good."""
        z, y = self._rows_of(box)
        lacking = np.flatnonzero(~self._done[z, y].all(axis=1))
        row = z.start + int(lacking[0]) if lacking.size else z.stop
        return int(min(row * self.array.chunks[1], box.stop[0]) - box.start[0])

    @property
    def complete(self) -> bool:
        return bool(self._done.all())

    def _rows_of(self, box: Box) -> tuple[slice, slice]:
        z, y, _ = box.to_chunks(self.array.chunks[1:]).slices
        return z, y

    def forget(self) -> None:
        """Have it computed anew, unless somebody is at that already."""
        with claim(self.marker.parent, self.marker.stem) as free:
            if free:
                self.marker.unlink(missing_ok=True)

    def mark(self, box: Box) -> None:
        """Say that a box of rows of chunks is written for good."""
        with self._marking:
            marked = _marked(self.marker, self.place)
            done = np.zeros(self._rows, bool) if marked is None or marked.shape != self._rows else marked
            if box.size:
                done[self._rows_of(box)] = True
            rows = ["".join(map(str, row.astype(int))) for row in done]
            write_sealed(self.marker, {"done": rows, "metadata": _metadata_digest(self.place)})

    def of(self, name: str) -> StoredProbabilities:
        volume = _WholeVolume(self.array, self.grid, str(self.place))
        return StoredProbabilities(Channel(volume, self.classes.index(name)))


@dataclass(frozen=True)
class Section:
    """A box of rows of chunks of a stored array (classes, z, y, x), to be written as if it were the whole.

    Planes are given whole chunks deep; each chunk is encoded by the thread that writes it, and is there at once or not
    at all. The zarr library takes twice as long for one, most of it in one thread for all.
    """

    stored: StoredPrediction
    box: Box

    def __setitem__(self, index: tuple[slice, slice], values: NDArray[Any]) -> None:
        channels, planes = index
        chunks = zyx(self.stored.array.chunks[1:])
        at = Box.of_shape(values.shape[1:]).shifted((planes.start + self.box.start[0], *self.box.start[1:]))
        for z, y, x in at.to_chunks(chunks).indices():
            chunk = Box.at((z, y, x), (1, 1, 1)).of_chunks(chunks).intersect(at)
            of_channels = values[:, *chunk.relative_to(at).slices]
            for channel, part in zip(range(channels.start, channels.stop), of_channels, strict=True):
                whole = np.zeros(chunks, np.uint8)
                whole[Box.of_shape(chunk.shape).slices] = part
                encoded = _COMPRESSOR.encode(_CHECKED[0].encode(whole))
                with replacing(self.stored.place / f"{channel}.{z}.{y}.{x}") as partial:
                    partial.write_bytes(encoded)


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
    stored.mark(Box.at((0, 0, 0), (0, 0, 0)))
    return stored


def stored_chunks(job: Job) -> tuple[int, int, int, int]:
    """Chunks of a stored probability array, of one class each."""
    z, y, x = (min(c, n) for c, n in zip(STORED_CHUNK, job.stored.shape, strict=True))
    return 1, z, y, x


def _stored(marker: Path) -> StoredPrediction | None:
    """The array that a marker is of; None where marker or metadata are not as they were written."""
    place = marker.with_suffix(".zarr")
    if _marked(marker, place) is None:
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


def _marked(marker: Path, place: Path) -> NDArray[np.bool_] | None:
    """Rows of chunks that a marker says are done; None where it, or the metadata of its array, are not as written."""
    marked = read_sealed(marker)
    if not isinstance(marked, dict) or marked.get("metadata") != _metadata_digest(place):
        return None
    rows = marked.get("done")
    if (
        not isinstance(rows, list)
        or not rows
        or not all(isinstance(row, str) and set(row) <= {"0", "1"} for row in rows)
    ):
        return None
    if len(set(map(len, rows))) != 1:
        return None
    return np.array([[cell == "1" for cell in row] for row in rows])


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
