"""Small annotated data sets on disk, as the challenge lays them out: one data set, "fly"."""

import json
from pathlib import Path

import numpy as np
import zarr

Triple = tuple[float, float, float]


def write_em(root: Path, data: np.ndarray, voxel_nm: float = 8, origin_nm: Triple = (0, 0, 0)) -> None:
    _write_group(root / "fly/fly.zarr/recon-1/em/fibsem-uint8", data, voxel_nm, origin_nm)


def write_truth(
    root: Path, name: str, data: np.ndarray, voxel_nm: float = 8, origin_nm: Triple = (0, 0, 0), crop: str = "1"
) -> None:
    place = root / f"fly/fly.zarr/recon-1/labels/groundtruth/crop{crop}/{name}"
    _write_group(place, data, voxel_nm, origin_nm)


def _write_group(place: Path, data: np.ndarray, voxel_nm: float, origin_nm: Triple) -> None:
    """An OME-NGFF 0.4 multiscale group of one level."""
    place.mkdir(parents=True)
    (place / ".zgroup").write_text('{"zarr_format": 2}')
    zarr.create_array(place / "s0", data=data, chunks=(16, 16, 16), zarr_format=2, fill_value=0)
    transforms = [
        {"type": "scale", "scale": [voxel_nm] * 3},
        {"type": "translation", "translation": list(origin_nm)},
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    datasets = [{"path": "s0", "coordinateTransformations": transforms}]
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    (place / ".zattrs").write_text(json.dumps(attributes))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)
