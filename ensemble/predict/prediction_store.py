"""Probabilities that a network predicted, kept by content: what is there is right, what is not is computed."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from ensemble.core.grid import Grid
from ensemble.plan.job import Job
from ensemble.predict.probabilities import Channel, StoredProbabilities
from ensemble.predict.sliding_window import stored_chunks
from ensemble.storage.tissue import Tissue
from ensemble.storage.volume import Volume, open_node
from ensemble.support.digests import code_digest, digest, library_versions
from ensemble.support.errors import VolumeError

_COMPRESSOR = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.NOSHUFFLE)

_CONFIG = {"write_empty_chunks": True}
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
class StoredPrediction:
    """One job's stored array (classes, z, y, x), complete or begun."""

    array: zarr.Array
    progress_file: Path
    classes: tuple[str, ...]
    grid: Grid
    place: Path

    @property
    def done_planes(self) -> int:
        """Planes before this are written for good, every chunk of theirs is there: also those of zeros are written."""
        said = int(self.progress_file.read_text()) if self.progress_file.exists() else 0
        classes, thick, *others = self.array.chunks
        counts = [-(-n // c) for n, c in zip(self.array.shape, (classes, thick, *others), strict=True)]
        there = Counter(int(f.name.split(".")[1]) for f in os.scandir(self.place) if _CHUNK_FILE.fullmatch(f.name))
        whole = math.prod(counts) // counts[1]
        lacking = (index * thick for index in range(counts[1]) if there[index] < whole)
        return min(said, next(lacking, said))

    @property
    def complete(self) -> bool:
        return self.done_planes == self.grid.shape[0]

    def forget(self) -> None:
        """Have it computed anew."""
        self.progress_file.unlink(missing_ok=True)

    def mark(self, planes: int) -> None:
        """Say that planes before ``planes`` are written for good."""
        part = self.progress_file.with_suffix(".part")
        part.write_text(str(planes))
        part.replace(self.progress_file)

    def of(self, name: str) -> StoredProbabilities:
        volume = Volume(self.array, self.grid, str(self.place))
        return StoredProbabilities(Channel(volume, self.classes.index(name)))


def complete_prediction(folder: Path, key: str, job: Job) -> StoredPrediction | None:
    """The complete array of a job, or one of more classes, under ``folder``; None where there is none."""
    mine = folder / f"{key}.planes"
    for marker in (mine, *sorted(m for m in folder.glob(f"{shared_key(key)}-*.planes") if m != mine)):
        kept = _found(marker)
        if kept is not None and set(job.classes) <= set(kept.classes) and kept.complete:
            return kept
    return None


def open_prediction(folder: Path, key: str, job: Job) -> StoredPrediction:
    """The stored array of a job under ``folder``, or a complete one of more classes; begun if neither is there."""
    if not (folder / f"{key}.planes").exists():
        wider = complete_prediction(folder, key, job)
        if wider is not None:
            return wider
    place = folder / f"{key}.zarr"
    marker = folder / f"{key}.planes"
    shape = (len(job.classes), *job.stored.shape)
    if marker.exists() and place.exists() and _known(marker):
        array = open_node(place)
        writable = zarr.open_array(str(place), mode="r+").with_config(_CONFIG) if array.shape == shape else None
    else:
        writable = None
    if writable is None:
        marker.unlink(missing_ok=True)
        writable = zarr.create_array(
            str(place),
            shape=shape,
            chunks=stored_chunks(job),
            dtype=np.uint8,
            zarr_format=2,
            compressors=_COMPRESSOR,
            filters=_CHECKED,
            fill_value=0,
            config=_CONFIG,
            attributes=_attributes(job.classes, job.stored),
            overwrite=True,
        )
        kept = StoredPrediction(writable, marker, job.classes, job.stored, place)
        kept.mark(0)
    return StoredPrediction(writable, marker, job.classes, job.stored, place)


def _found(marker: Path) -> StoredPrediction | None:
    """The array that a marker is of; None where it is not whole."""
    place = marker.with_suffix(".zarr")
    if not (marker.exists() and place.exists() and _known(marker)):
        return None
    try:
        array = open_node(place)
        grid = Grid(array.shape[1:], tuple(array.attrs["voxel_size"]), tuple(array.attrs["translation"]))
        return StoredPrediction(array, marker, tuple(array.attrs["classes"]), grid, place)
    except (VolumeError, KeyError, TypeError, ValueError, FileNotFoundError):
        return None


def _known(marker: Path) -> bool:
    return marker.read_text().isdigit()


def _attributes(classes: Sequence[str], grid: Grid) -> dict[str, Any]:
    return {
        "classes": list(classes),
        "voxel_size": list(grid.voxel_size_nm),
        "translation": list(grid.origin_nm),
        "scale": "probability = value / 255",
    }
