"""A job small enough to build in seconds, and what tests do with it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNet

from ensemble.cli import main
from ensemble.core import manifest
from registry.card import Card
from registry.store import Registry

ARGUMENTS = {"channels": [4, 8], "strides": [2]}
ALL = manifest.official_manifest()[0].classes
EMPTY = [name for name in ALL if name not in ("mito", "mito_mem", "mito_lum", "nuc", "ecs")]
RECIPE = f"""\
name: small
sources:
  fine: {{model: "models:/fine@champion"}}
  coarse: {{model: "models:/coarse@champion"}}
  theirs: {{predictions: "{{root}}/theirs/{{dataset}}.zarr/{{crop}}/{{class}}"}}
defaults: {{source: fine, threshold: 0.5}}
classes:
  mito:
    source: {{mean: {{fine: 3, coarse: 1}}}}
    postprocess: [{{watershed: {{min_distance_nm: 30}}}}, {{drop_small: {{min_size_voxels: 20}}}}]
  nuc: {{source: coarse, weight: hard}}
  ecs: {{source: theirs}}
empty: [{", ".join(EMPTY)}]
consistency: joint
"""


def checkpoint(path: Path, classes: int, seed: int) -> Path:
    torch.manual_seed(seed)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=classes, channels=(4, 8), strides=(2,))
    torch.save(network.state_dict(), path)
    return path


def card(name: str, classes: tuple[str, ...], voxel_nm: float) -> Card:
    return Card(
        name=name,
        architecture="UNet",
        arguments=ARGUMENTS,
        classes=classes,
        voxel_size_nm=voxel_nm,
        patch_voxels=16,
        overlap=0.25,
        activation="sigmoid",
        truth_sizes_log2_nm3={"mito": {"12": 3, "15": 1}} if "mito_mem" in classes else {},
    )


BUILD = ["build", "small.yaml", "--manifest", "manifest.csv", "--device", "cpu"]


def run(*arguments: str) -> int:
    return main([*BUILD, *arguments])


def wrong(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one line on stderr of a command that must find its input wrong."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ensemble: ")]
    assert len(lines) == 1
    assert not Path("build/small/submission.zip").exists()
    return lines[0]


def runs(store: Registry) -> int:
    import mlflow

    client = mlflow.MlflowClient(store.tracking_uri)
    experiment = client.get_experiment_by_name("ensemble builds")
    return 0 if experiment is None else len(client.search_runs([experiment.experiment_id]))


def predictions(place: Path) -> dict[str, int]:
    kept = place.joinpath("build", "small", "work", "predictions")
    return {str(p): p.stat().st_mtime_ns for p in kept.rglob("*") if p.is_file()}


def start(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "ensemble.cli", *BUILD, *arguments]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(pattern: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while not list(Path("build/small").glob(pattern)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))
