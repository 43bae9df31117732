"""What tests of tuning share."""

import contextlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from ensemble.core import manifest
from ensemble.core.manifest import Target
from tests.support.empty_registry import store_in
from tests.support.small_tuning import CLASSES, GRID, RECIPE, balls, predicted, tuned
from tests.support.volumes import write_array, write_em


@pytest.fixture(scope="session")
def place_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source a is better at mito, b at nuc; the er of a is off by a logit of 2, that of b is noise."""
    folder = tmp_path_factory.mktemp("tuning")
    write_em(folder / "data", "d", [(np.full(GRID.shape, 100, np.uint8), GRID)], chunk=64)
    manifest.write_manifest(folder / "manifest.csv", [Target("5", "d", GRID, CLASSES)])
    truth = {"mito": balls(1, 5, 14), "nuc": balls(2, 6, 10), "er": (balls(3, 4, 20) > 0).astype(np.uint8)}
    for name, labels in truth.items():
        write_array(folder / "truth.zarr" / "crop5" / name, labels, GRID, chunk=64)
    made = {
        "a": {"mito": (1, 1.0, 0), "nuc": (2, 4.5, 0), "er": (3, 2.0, 2.0)},
        "b": {"mito": (4, 4.5, 0), "nuc": (5, 1.0, 0), "er": (6, 9.0, 0)},
    }
    for source, classes in made.items():
        for name, (seed, noise, offset) in classes.items():
            p = predicted(truth[name], seed, noise, offset)
            write_array(folder / "data" / source / "crop5" / name, p, GRID, chunk=64)
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def enter(once: Path, folder: Path, patched: pytest.MonkeyPatch, registry: Path | None = None) -> Path:
    """A copy of a folder as the working directory; the process has the registry in it, or the one given."""
    shutil.copytree(once, folder, dirs_exist_ok=True)
    patched.chdir(folder)
    patched.setenv("MLFLOW_TRACKING_URI", store_in(registry or folder).tracking_uri)
    return folder


@pytest.fixture
def place(place_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> Path:
    """Tunings of all tests are kept in one registry, which holds no model."""
    return enter(place_once, tmp_path, monkeypatch, tmp_path_factory.getbasetemp() / "tunings")


@pytest.fixture(scope="session")
def tuned_once(place_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after its recipe was tuned, by whichever worker comes first; "said" is what the command printed."""
    of_worker = tmp_path_factory.getbasetemp()
    folder = (of_worker.parent if "PYTEST_XDIST_WORKER" in os.environ else of_worker) / "tuned"
    with FileLock(f"{folder}.lock"):
        if not (folder / "said").exists():
            with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as said:
                enter(place_once, folder, patched)
                tuned()
            (folder / "said").write_text(said.getvalue())
    return folder


@pytest.fixture
def tuned_place(tuned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter(tuned_once, tmp_path, monkeypatch)
