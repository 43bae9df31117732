"""Zarr and OME metadata, damaged: what EM, truth and predictions hold after a slip of some tool, or of a disk."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.plan.recipe import LabelSource, PredictionSource
from ensemble.predict.stored_sources import open_labels, open_predictions
from ensemble.storage.em_pyramids import EM
from ensemble.storage.truth import whole_truth
from ensemble.support.errors import EnsembleError
from tests.support.volumes import noise, write_array, write_em

GRID = Grid((12, 12, 12), (8, 8, 8), (4, 4, 4))
TARGET = Target("1", "d", GRID, ("mito",))
METADATA = (".zattrs", ".zarray", ".zgroup", "zarr.json")

ODD: list[Any] = [None, True, 0, -1, 1, 3, 2**31, 2**63, 10**30, 0.5, -1e308, float("nan"), float("inf"), "", "8"]
ODD += ["z", "../..", "a\0b", "é" * 300, [], [[]], [0, 0, 0], [1, 2], ["x", "y", "z"], [8] * 5, {}, {"id": "blosc"}]
ODD += [{"name": "z"}, {"type": "scale"}, {"type": "translation", "translation": [1, 2]}, [None] * 3, "<f4", "|O"]
NEAR = [0, 1, -1, 2, 7, 1_000, 10**6, 10**12]
TEXTS = [b"", b"{", b"null", b"[]", b"3", b'"text"', b"\xff\xfe{}", b"\0" * 40, b"NaN", b"[" * 100_000, b"9" * 5_000]
TEXTS += [b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"multiscales": [' + b"[" * 2_000 + b"]" * 2_000 + b"]}"]


@dataclass(frozen=True)
class Damage:
    """One metadata file of the corpus and what it holds instead; None: a folder lies in its place."""

    file: str
    content: bytes | None

    @property
    def folder(self) -> str:
        """What of the corpus is damaged."""
        return self.file.split("/")[0]


def write_corpus(root: Path) -> list[str]:
    """EM, truth and predictions of Zarr v2 and v3, each alike; the metadata files among them."""
    write_em(root, "d", [(noise(GRID.shape), GRID), (noise((6, 6, 6)), GRID.covering((16, 16, 16)))], chunk=6)
    _write_v3(root / "v3/v3.zarr/recon-1/em/fibsem-uint8")
    p = (noise(GRID.shape) / 255).astype(np.float32)
    write_array(root / "p2/mito", p, GRID, chunk=6)
    write_array(root / "crop1/mito", noise(GRID.shape), GRID, chunk=6)
    placed = {"voxel_size": [8, 8, 8], "translation": [4, 4, 4], "axis_names": ["c^", "z", "y", "x"], "units": "nm"}
    options = {"chunks": (1, 6, 6, 6), "zarr_format": 3, "dimension_names": ["c", "z", "y", "x"]}
    zarr.create_array(str(root / "p3/all"), data=np.stack([p, p]), attributes=placed, **options)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name in METADATA)


def _write_v3(place: Path) -> None:
    zarr.create_array(str(place / "s0"), data=noise(GRID.shape), chunks=(6, 6, 6), shards=(12, 12, 12), zarr_format=3)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = {"type": "scale", "scale": [0.008] * 3}
    image = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": [scale]}]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "multiscales": [image]}}}
    (place / "zarr.json").write_text(json.dumps(group))


def inputs(root: Path, files: list[str], seed: int) -> Iterator[Damage]:
    """Damages of a corpus, one after the other without end; the same for a seed."""
    rng = random.Random(seed)
    while True:
        file = rng.choice(files)
        whole = (root / file).read_bytes()
        kind = rng.random()
        if kind < 0.03:
            yield Damage(file, None)
        elif kind < 0.08:
            yield Damage(file, rng.choice(TEXTS))
        elif kind < 0.2:
            yield Damage(file, _bytes_changed(whole, rng))
        else:
            data = json.loads(whole)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                data = _changed(data, rng)
            yield Damage(file, json.dumps(data).encode())


def _bytes_changed(whole: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return rng.choice((whole[:at], whole[:at] + rng.randbytes(2) + whole[at + 2 :], whole[:at] + whole[at + 1 :]))


def _changed(data: Any, rng: random.Random) -> Any:
    """The data with one value somewhere in it replaced, removed, repeated, renamed or wrapped."""
    if isinstance(data, dict | list) and data and rng.random() < 0.9:
        where = list(data) if isinstance(data, dict) else range(len(data))
        at, copy = rng.choice(list(where)), data.copy()
        if rng.random() < 0.12:
            copy.pop(at)
        elif rng.random() < 0.1:
            copy = {**copy, f"{at}s": copy[at]} if isinstance(copy, dict) else [*copy, copy[at]]
        else:
            copy[at] = _changed(copy[at], rng)
        return copy
    if isinstance(data, int | float) and rng.random() < 0.5:
        return rng.choice((data + rng.choice(NEAR), data * rng.choice(NEAR), rng.choice(NEAR)))
    deep = [[data]]
    for _ in range(900 if rng.random() < 0.02 else 0):
        deep = [deep]
    return rng.choice((rng.choice(ODD), rng.choice(ODD), rng.choice(ODD), deep, {"value": data}, str(data)))


@contextmanager
def damaged(root: Path, damage: Damage) -> Iterator[None]:
    """The corpus with the damage done, for a while."""
    file = root / damage.file
    whole = file.read_bytes()
    try:
        if damage.content is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(damage.content)
        yield
    finally:
        if file.is_dir():
            file.rmdir()
        file.write_bytes(whole)


def _read_em(root: Path, dataset: str) -> None:
    em = EM(root)
    for level in range(len(em.levels(dataset))):
        core = em.levels(dataset)[level].box_over(GRID)
        box = em.tissue_box(dataset, level, core, core.grown((2, 2, 2)))
        tissue = em.tissue(dataset, level, box)
        tissue.warnings(GRID)
        tissue.volume.identity(box)
        tissue.read(core)


def _read_predictions(root: Path, source: PredictionSource) -> None:
    part = open_predictions(source, str(root), TARGET, ["mito"])["mito"].over(GRID)
    part.bounds(GRID.sub(Box.of_shape((4, 4, 4))))
    part.probability(GRID, "linear")


READERS: dict[str, Callable[[Path], object]] = {
    "d": lambda root: _read_em(root, "d"),
    "v3": lambda root: _read_em(root, "v3"),
    "p2": lambda root: _read_predictions(root, PredictionSource("{root}/p2/{class}")),
    "p3": lambda root: _read_predictions(root, PredictionSource("{root}/p3/all", ("mito", None), "softmax")),
    "crop1": lambda root: whole_truth(root, TARGET, "mito"),
    "crop1 as labels": lambda root: (
        open_labels(LabelSource("{root}/crop1/{class}"), str(root), TARGET, "mito").over(GRID).ids(GRID)
    ),
}


def refusals(root: Path, folder: str) -> int:
    """Read all that lies in a folder of the corpus; how many readers refused it, in a line."""
    refused = 0
    for name, read in READERS.items():
        try:
            if name.split(" ")[0] == folder:
                read(root)
        except EnsembleError:
            refused += 1
    return refused
