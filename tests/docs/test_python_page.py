"""docs/python.md: its examples run, in their order, on a small build in the place of the demo's."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ensemble.core import Target, load_manifest, write_manifest
from registry import Registry
from tests.docs.code_blocks import code_blocks, run_block
from tests.support import small_build
from tests.support.processes import ROOT
from tests.support.volumes import write_array

PAGE = ROOT / "docs" / "python.md"
CROPS = {"1": "701", "2": "703"}


@pytest.fixture
def small_demo(tmp_path: Path, store: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small build's data under the demo's names: build/demo and demo.yaml; the working directory."""
    demo = small_build.furnish(tmp_path / "build" / "demo")
    (demo / "small.yaml").rename(tmp_path / "demo.yaml")
    targets = [
        Target(CROPS[target.crop], target.dataset, target.grid, target.classes)
        for target in load_manifest(demo / "manifest.csv")
    ]
    write_manifest(demo / "manifest.csv", targets)
    for old, new in CROPS.items():
        theirs = demo / "data" / "theirs" / "d.zarr"
        (theirs / f"crop{old}").rename(theirs / f"crop{new}")
    for target in targets:
        truth = np.zeros(target.grid.shape, np.uint8)
        truth[:, 1:5, 1:5] = 1
        write_array(demo / "truth.zarr" / target.group / "mito", truth, target.grid)
    shutil.copytree(Path(store.tracking_uri.removeprefix("sqlite:///")).parent, demo / "mlruns")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_runs(small_demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    blocks = code_blocks(PAGE)
    for line, code in blocks:
        run_block(PAGE, line, code, names)
    assert len(blocks) >= 6
    shown = "build/demo/submission.zip: crop701/mitos: there is no such array; did you mean 'crop701/mito'?"
    assert shown in capsys.readouterr().out
    assert shown in PAGE.read_text()


def test_every_verb_is_shown() -> None:
    import ensemble

    page = PAGE.read_text()
    assert [name for name in ensemble.__all__ if f"ensemble.{name}" not in page and name != "__version__"] == []
