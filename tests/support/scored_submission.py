"""A small submission beside its truth, scored."""

import io
from pathlib import Path

import numpy as np
import zarr
from rich.console import Console

from ensemble.cli import score_tables as score_table
from ensemble.scoring.evaluation import score
from ensemble.scoring.scores import Scores
from tests.support import small_submission as small

GRID = small.GRID
SIZE = GRID.size


def write_truth(root: Path, masks: small.Masks | None = None, attributes: dict | None = None) -> Path:
    """Truth of both crops in the challenge's layout; crop 984's nucleus is empty."""
    attributes = attributes or {"voxel_size": list(GRID.voxel_size_nm), "translation": list(GRID.origin_nm)}
    store = zarr.open_group(root, mode="w", zarr_format=2)
    for name, mask in (masks or small.good()).items():
        array = store.create_array(f"crop557/{name}", shape=mask.shape, dtype=mask.dtype, chunks=(40, 20, 30))
        array.attrs.update(attributes)
        array[:] = mask
    grid = small.SMALL.grid
    nuc = store.create_array("crop984/nuc", shape=grid.shape, dtype=np.uint8, chunks=grid.shape)
    nuc.attrs.update({"voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)})
    return root


def scored(submission: Path, truth: Path, **kwargs) -> Scores:
    return score(small.zipped(submission), truth, small.TARGETS, **kwargs)


def shown(*args, **kwargs) -> str:
    console = Console(file=io.StringIO(), width=160)
    for part in score_table.score_tables(*args, **kwargs):
        console.print(part)
    return console.file.getvalue()
