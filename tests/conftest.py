"""What several files of tests build on."""

from pathlib import Path

import numpy as np
import pytest
from small_build import ALL, RECIPE, card, checkpoint
from volumes import noise, write_array, write_em

from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from registry.store import Registry


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with two models, used by every build of this file."""
    folder = tmp_path_factory.mktemp("registry")
    store = Registry(f"sqlite:///{folder / 'mlflow.db'}")
    fine = checkpoint(folder / "fine.pt", 3, 1)
    store.register(fine, card("fine", ("mito", "mito_mem", "mito_lum"), 4), alias="champion")
    coarse = checkpoint(folder / "coarse.pt", 2, 2)
    store.register(coarse, card("coarse", ("nuc", "mito"), 16), alias="champion")
    return store


@pytest.fixture
def place(tmp_path: Path, store: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with EM, one tool's predictions, a manifest and a recipe; the working directory."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.chdir(tmp_path)
    return furnish(tmp_path)


def furnish(tmp_path: Path) -> Path:
    """Write what ``place`` holds."""
    em = Grid((40, 48, 56), (8, 8, 8), (4, 4, 4))
    write_em(tmp_path / "data", "d", [(noise(em.shape), em)])
    targets = [
        Target("1", "d", Grid((70, 18, 20), (4, 4, 4), (22, 82, 82)), ALL),
        Target("2", "d", Grid((8, 6, 7), (16, 16, 16), (40, 40, 40)), ALL),
    ]
    manifest.write_manifest(tmp_path / "manifest.csv", targets)
    for target in targets:
        grid = target.grid.covering((8, 8, 8))
        p = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
        write_array(tmp_path / f"data/theirs/d.zarr/{target.group}/ecs", p, grid)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path
