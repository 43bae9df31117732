"""Small data sets on disk, as the challenge lays them out."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr

from ensemble.core.grid import Grid
from ensemble.storage.opening import em_place


def write_em(root: Path, dataset: str, levels: Iterable[tuple[np.ndarray, Grid]], chunk: int = 16) -> Path:
    """An OME-NGFF 0.4 pyramid of EM; returns its folder."""
    place = Path(em_place(root, dataset))
    entries = []
    for number, (array, grid) in enumerate(levels):
        zarr.create_array(
            str(place / f"s{number}"),
            data=array,
            chunks=tuple(min(chunk, n) for n in array.shape),
            zarr_format=2,
            fill_value=0,
            overwrite=True,
        )
        transforms = [
            {"type": "scale", "scale": list(grid.voxel_size_nm)},
            {"type": "translation", "translation": list(grid.origin_nm)},
        ]
        entries.append({"path": f"s{number}", "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": entries}]}
    (place / ".zgroup").write_text('{"zarr_format": 2}')
    (place / ".zattrs").write_text(json.dumps(attributes))
    return place


def write_array(place: Path, array: np.ndarray, grid: Grid, chunk: int = 16) -> Path:
    """A plain array with its place in space."""
    zarr.create_array(
        str(place),
        data=array,
        chunks=tuple(min(chunk, n) for n in array.shape),
        zarr_format=2,
        fill_value=0,
        attributes={"voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)},
        overwrite=True,
    )
    return place


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
