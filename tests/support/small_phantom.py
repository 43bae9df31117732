"""A phantom of half a micrometre, and what was written of it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import zarr

from ensemble.core import manifest
from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.demo import dataset as phantom
from ensemble.demo.tissue import Seed

SCORED = next(target.classes for target in manifest.official_manifest() if target.crop == "557")


# Written out from the challenge's table, for the atoms that the phantom draws.
UNIONS = {
    "mito": {"mito_mem", "mito_lum"},
    "ves": {"ves_mem", "ves_lum"},
    "ld": {"ld_mem", "ld_lum"},
    "np": {"np_out", "np_in"},
    "ne": {"ne_mem", "ne_lum", "np_out", "np_in"},
    "er": {"er_mem", "er_lum", "ne_mem", "ne_lum", "np_out", "np_in"},
    "er_mem_all": {"er_mem", "ne_mem"},
    "ne_mem_all": {"ne_mem", "np_out", "np_in"},
    "chrom": {"hchrom", "echrom"},
    "nuc": {"ne_mem", "ne_lum", "np_out", "np_in", "hchrom", "echrom", "nucpl"},
}


ATOMS = {*set.union(*UNIONS.values()), "pm", "cyto", "ecs"}


def small_sample() -> phantom.Sample:
    """0.5 x 0.6 x 0.8 µm with everything a full sample has, half of it to learn from and half to predict."""
    em = Grid((64, 75, 96), (8.0, 8.0, 8.0), (100.25, 200.0, 300.5))
    test = Grid((25, 28, 22), (16.0, 16.0, 16.0), (152.25, 252.0, 704.5))
    return phantom.Sample(
        dataset="phantom-small",
        em=em,
        seeds=(Seed((250, 250, 200), 330, nucleated=True), Seed((250, 350, 650), 190)),
        test=Target("703", "phantom-small", test, SCORED),
        training={"603": Box((4, 5, 0), (60, 70, 48))},
    )


def em_path(root: Path, dataset: str = "phantom-small") -> Path:
    return root / "data" / dataset / f"{dataset}.zarr" / "recon-1" / "em" / "fibsem-uint8"


def levels_of(path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Values, voxel size and centre of the first voxel of each level, as the metadata has them."""
    (image,) = json.loads((path / ".zattrs").read_text())["multiscales"]
    levels = []
    for row in image["datasets"]:
        scale, translation = row["coordinateTransformations"]
        values = zarr.open_array(path / row["path"], mode="r")[...]
        levels.append((values, np.array(scale["scale"]), np.array(translation["translation"])))
    return levels


def digest(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
