"""A store of two crops: "er" is empty, the others hold ids 0, 1 and 2."""

from pathlib import Path

import numpy as np

from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.submission.writer import create_array, write_group_files

FINE_GRID = Grid((70, 130, 40), (1.74, 2.0, 2.0), (23837.13, 7599.0, 35999.0))
FINE = Target("557", "jrc_ctl-id8-1", FINE_GRID, ("mito", "er"))
COARSE_GRID = Grid((5, 6, 7), (32, 32, 32), (400012.0, 38412.0, 150412.0))
COARSE = Target("984", "jrc_mus-liver-zon-2", COARSE_GRID, ("nuc",))
TARGETS = (FINE, COARSE)


def labels(target: Target, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, target.grid.shape).astype(np.uint16)


def build(root: Path, attributes: dict | None = None) -> None:
    """A store whose "er" is empty and whose others hold ids 0, 1, 2."""
    write_group_files(root, TARGETS, {} if attributes is None else attributes)
    for seed, target in enumerate(TARGETS):
        for name in target.classes:
            array = create_array(root, target, name, np.uint16)
            if name != "er":
                array[target.grid.box] = labels(target, seed)
