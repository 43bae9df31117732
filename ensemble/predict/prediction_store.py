"""Probabilities that a network predicted, kept by content: what is there is right, what is not is computed.

Builds share a folder of them. Who writes a prediction holds its claim, and no chunk that was there is ever away: what
is made anew is written over, so that nobody who reads it meanwhile takes a chunk that is not there for zeros.
"""

import hashlib
import math
import operator
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import StringConstraints, TypeAdapter

from ensemble.core import Box, Grid, VoxelsZYX, nm_zyx, zyx
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

_SECTION = ".section"
"""How the files end in which workers mark what they wrote."""

_CHUNK_FILE = re.compile(r"\d+(\.\d+){3}")

_LAYERS = TypeAdapter(list[list[Annotated[str, StringConstraints(pattern="^[01]+$")]]])
"""Of chunks, in rows along x."""

_DECIDING = {"architecture", "arguments", "planes", "classes", "normalisation", "activation"}
"""Keys of a card that decide what a patch is answered with."""

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
            "card": card.model_dump(include=_DECIDING),
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

    ``marker`` is the file that says which chunks (z, y, x) are written for good, and what the array's metadata were.
    """

    array: ZarrArray
    marker: Path
    classes: tuple[str, ...]
    grid: Grid
    place: Path
    _marking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def _chunks(self) -> VoxelsZYX:
        """Chunks along z, y and x."""
        return zyx(math.ceil(n / c) for n, c in zip(self.array.shape[1:], self.array.chunks[1:], strict=True))

    @property
    def _done(self) -> NDArray[np.bool_]:
        """Chunks (z, y, x) that are written for good and there in every channel: those of zeros too."""
        marked = _marked(self.marker, self.place)
        if marked is None or marked.shape != self._chunks:
            return np.zeros(self._chunks, bool)
        there = np.zeros(self._chunks, int)
        for file in os.scandir(self.place):
            if _CHUNK_FILE.fullmatch(file.name):
                _, z, y, x = map(int, file.name.split("."))
                if all(map(operator.lt, (z, y, x), there.shape)):
                    there[z, y, x] += 1
        done: NDArray[np.bool_] = marked & (there == self.array.shape[0])
        return done

    def done_planes(self, box: Box) -> int:
        """How many planes of a box of chunks, from its first, are written for good."""
        chunks = self._under(box)
        lacking = np.flatnonzero(~self._done[chunks.slices].all(axis=(1, 2)))
        layer = chunks.start[0] + int(lacking[0]) if lacking.size else chunks.stop[0]
        return int(min(layer * self.array.chunks[1], box.stop[0]) - box.start[0])

    @property
    def complete(self) -> bool:
        return bool(self._done.all())

    def _under(self, box: Box) -> Box:
        return box.to_chunks(zyx(self.array.chunks[1:]))

    def forget(self) -> None:
        """Have it computed anew, unless somebody is at that already."""
        with claim(self.marker.parent, self.marker.stem) as free:
            if free:
                self.marker.unlink(missing_ok=True)

    def mark(self, box: Box) -> None:
        """Say that a box of chunks is written for good."""
        with self._marking:
            marked = _marked(self.marker, self.place)
            done = np.zeros(self._chunks, bool) if marked is None or marked.shape != self._chunks else marked
            if box.size:
                done[self._under(box).slices] = True
            layers = [["".join(map(str, row.astype(int))) for row in layer] for layer in done]
            write_sealed(self.marker, {"done": layers, "metadata": _metadata_digest(self.place)})

    def take_sections(self) -> None:
        """Say of what workers marked as theirs that it is written for good."""
        for section in self.marker.parent.glob(f"{self.marker.stem}.*{_SECTION}"):
            marked = _marked(section, self.place)
            for chunk in np.argwhere(marked) if marked is not None and marked.shape == self._chunks else ():
                self.mark(Box.at(zyx(chunk), (1, 1, 1)).of_chunks(zyx(self.array.chunks[1:])))
            section.unlink(missing_ok=True)

    def forget_section(self, box: Box) -> None:
        """Drop the marks of the worker that wrote a box of chunks, which are this array's own now."""
        _section_marker(self.marker, box).unlink(missing_ok=True)

    def of(self, name: str) -> StoredProbabilities:
        volume = _WholeVolume(self.array, self.grid, str(self.place))
        return StoredProbabilities(Channel(volume, self.classes.index(name)))


@dataclass(frozen=True)
class Section:
    """A box of chunks of a stored array (classes, z, y, x), to be written as if it were the whole.

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
        stored = StoredPrediction(_writable(place), marker, job.classes, job.stored, place)
        stored.take_sections()
        return stored
    for section in folder.glob(f"{key}.*{_SECTION}"):
        section.unlink(missing_ok=True)
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


def section_of_prediction(folder: Path, key: str, job: Job, box: Box) -> StoredPrediction:
    """The array of a job that another process began, to be written in a box of chunks by who calls this.

    What of it is written for good is marked in a file of its own, ``marker``.
    """
    place = folder / f"{key}.zarr"
    marker = _section_marker(folder / f"{key}.planes", box)
    if _marked(marker, place) is None:
        write_sealed(marker, read_sealed(folder / f"{key}.planes"))
    return StoredPrediction(_writable(place), marker, job.classes, job.stored, place)


def _section_marker(marker: Path, box: Box) -> Path:
    start, stop = ("-".join(map(str, bounds)) for bounds in (box.start, box.stop))
    return marker.with_suffix(f".{start}-{stop}{_SECTION}")


def _writable(place: Path) -> ZarrArray:
    return zarr.open_array(str(place), mode="r+").with_config(_CONFIG)


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
    """Chunks that a marker says are done; None where it, or the metadata of its array, are not as written."""
    marked = read_sealed(marker)
    if not isinstance(marked, dict) or marked.get("metadata") != _metadata_digest(place):
        return None
    try:
        layers = _LAYERS.validate_python(marked.get("done"))
        done = np.array([[[cell == "1" for cell in row] for row in layer] for layer in layers])
    except ValueError:  # also for layers and rows of several lengths
        return None
    return done if done.ndim == 3 else None


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
