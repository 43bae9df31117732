"""A small good submission of two crops, and the means to spoil it by hand."""

import json
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import zarr

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.submission.check_report import CheckReport
from ensemble.submission.checking import check
from ensemble.submission.writer import create_array, write_group_files

SHAPE = (70, 20, 30)
GRID = Grid(SHAPE, (1.74, 2.0, 2.0), (23837.13, 7599.0, 35999.0))
TARGET = Target("557", "jrc_ctl-id8-1", GRID, ("ecs", "mito_mem", "mito_lum", "nuc", "mito"))
SMALL = Target("984", "jrc_mus-liver-zon-2", Grid((4, 5, 6), (32, 32, 32), (400012, 38412, 150412)), ("nuc",))
TARGETS = (TARGET, SMALL)

Masks = dict[str, np.ndarray]


def good() -> Masks:
    """Two mitochondria in extracellular space, one of them across two chunks, and a nucleus."""
    masks = {name: np.zeros(SHAPE, np.uint8) for name in TARGET.classes}
    for id_, z in ((1, 10), (2, 60)):
        masks["mito"][z : z + 9, 2:12, 2:12] = id_
        masks["mito_lum"][z + 2 : z + 7, 4:10, 4:10] = 1
    masks["mito_mem"][(masks["mito"] > 0) & (masks["mito_lum"] == 0)] = 1
    masks["nuc"][66:70, 14:20, 0:10] = 1
    masks["ecs"][(masks["mito"] == 0) & (masks["nuc"] == 0)] = 1
    return masks


def write(root: Path, masks: Masks | None = None, attributes: dict | None = None) -> Path:
    write_group_files(root, TARGETS, attributes or {})
    for name, mask in (masks or good()).items():
        create_array(root, TARGET, name, mask.dtype)[TARGET.grid.box] = mask
    create_array(root, SMALL, "nuc", np.uint8)
    return root


def zipped(root: Path) -> Path:
    """The folder as it is, faults and all, in a zip."""
    place = root.with_suffix(".zip")
    with zipfile.ZipFile(place, "w") as file:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(root).as_posix())
    return place


def checked(root: Path) -> CheckReport:
    return check(zipped(root), TARGETS)


def edit(path: Path, **changes) -> None:
    """Change keys of a metadata file; ... takes a key away."""
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def rewrite(root: Path, name: str, mask: np.ndarray, **kwargs) -> None:
    """Replace an array of crop 557 by one that other software might have written."""
    settings = {"chunks": (64, 20, 30), "compressors": numcodecs.Zstd(), "fill_value": 0, "filters": None}
    array = zarr.create_array(
        str(root / "crop557" / name),
        shape=mask.shape,
        dtype=mask.dtype,
        zarr_format=2,
        overwrite=True,
        attributes=json.loads((root / "crop557" / name / ".zattrs").read_text()),
        **(settings | kwargs),
    )
    array[:] = mask


def remove(root: Path, name: str) -> None:
    path = root / name
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        file.unlink()


def cut_chunk(root: Path) -> None:
    chunk = root / "crop557/mito/1.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
