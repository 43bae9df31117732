"""A job small enough to build in seconds, and what tests do with it."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from ensemble.cli import main
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from registry.card import Card
from registry.store import Registry
from tests.support.command import ensemble
from tests.support.processes import Forked
from tests.support.volumes import noise, write_array, write_em

ARGUMENTS = {"channels": [4, 8], "strides": [2]}
EMPTY = ["pm", "ld", "lyso"]
ALL = tuple(sorted(["ecs", "mito", "mito_lum", "mito_mem", "nuc", *EMPTY]))
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


def registered(store: Registry) -> Registry:
    """A registry, to which the two models of the recipe are added."""
    with tempfile.TemporaryDirectory() as folder:
        fine = checkpoint(Path(folder, "fine.pt"), 3, 1)
        store.register(fine, card("fine", ("mito", "mito_mem", "mito_lum"), 4), alias="champion")
        coarse = checkpoint(Path(folder, "coarse.pt"), 2, 2)
        store.register(coarse, card("coarse", ("nuc", "mito"), 16), alias="champion")
    return store


def furnish(folder: Path) -> Path:
    """EM, one tool's predictions, a manifest and a recipe, written into ``folder``."""
    em = Grid((40, 48, 56), (8, 8, 8), (4, 4, 4))
    write_em(folder / "data", "d", [(noise(em.shape), em)])
    targets = [
        Target("1", "d", Grid((70, 18, 20), (4, 4, 4), (22, 82, 82)), ALL),
        Target("2", "d", Grid((8, 6, 7), (16, 16, 16), (40, 40, 40)), ALL),
    ]
    manifest.write_manifest(folder / "manifest.csv", targets)
    for target in targets:
        grid = target.grid.covering((8, 8, 8))
        p = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
        write_array(folder / f"data/theirs/d.zarr/{target.group}/ecs", p, grid)
    (folder / "small.yaml").write_text(RECIPE)
    return folder


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
    """The files of stored predictions, and when each was written."""
    files = (p for kind in ("*.planes", "*.zarr/*") for p in place.glob(f"build/predictions/{kind}"))
    return {str(p): p.stat().st_mtime_ns for p in files}


def start(**options) -> Forked:
    """The build as a process, stopped where ``stop_at`` says."""
    return ensemble(*BUILD, **options)


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))
