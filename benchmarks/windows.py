"""What overlap of patches and context around a crop are worth: patches, IoU and the challenge's score on real EM.

    python -m benchmarks.windows ROOT [--out build/windows] [--registry URI]

ROOT as in ``benchmarks.real_em``. A small network for each data set is trained for a few hundred steps, far from what
it could learn (or taken from a registry that has both by their names); then the validation crops are built with each
overlap, with context and without, by recipes that differ in nothing else.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
from rich.table import Table

from ensemble.build import build
from ensemble.cli import bars, console
from ensemble.core import load_manifest
from ensemble.plan import PlanDescription, Request, prepare
from ensemble.scoring import score
from ensemble.storage import open_volume
from ensemble.submission import Submission
from ensemble.support import dump_yaml
from ensemble.train import load_spec, train
from registry import Registry

OVERLAPS = (0.25, 0.5, 0.625)
NETWORKS = {
    "fly_brain_mito.yaml": {"name": "windows-fly", "patch_voxels": "64", "batch_size": "2", "steps": "400"},
    "hippocampus.yaml": {
        "name": "windows-hippocampus",
        "patch_voxels": "[20, 96, 96]",
        "batch_size": "2",
        "steps": "400",
    },
}
"""Shipped training specs, and what is changed in them: larger patches, far fewer steps."""

MITO = ["components", {"drop_small": {"min_size_nm3": 500_000}}]
"""Post-processing as in ``benchmarks.real_em``: the specks of a poor network would decide its score."""


def trained(root: Path, registry: Registry, work: Path) -> None:
    """The networks, trained and registered."""
    for name, changes in NETWORKS.items():
        spec = load_spec(name, {**changes, "validate_every": "200"})
        with bars.progress() as progress:
            progress.stage(f"train {spec.name}", spec.steps)
            train(spec, data_root=root, registry=registry, work=work, progress=progress.at)


def recipe(overlap: float, *, context: bool) -> str:
    """Each data set by its own network."""
    windows = {"overlap": overlap, "context": context}
    return dump_yaml(
        {
            "name": "windows",
            "sources": {
                "fly": {"model": "models:/windows-fly@champion", **windows},
                "hippocampus": {"model": "models:/windows-hippocampus@champion", **windows},
            },
            "defaults": {"source": "hippocampus"},
            "classes": {"mito": {"postprocess": MITO, "when": [{"dataset": "fly-brain", "source": "fly"}]}},
        }
    )


def measure(root: Path, registry: Registry, folder: Path, overlap: float, *, context: bool) -> dict[str, str]:
    """A build of the validation crops, beside their truth: a cell for each column."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe(overlap, context=context))
    manifest, truth = root / "validation_manifest.csv", root / "validation_truth.zarr"
    request = Request(folder / "recipe.yaml", folder, manifest, str(root), device="cpu", overwrite=True)
    described = PlanDescription.of(prepare(request, registry).plan, request.budget)
    with bars.progress() as progress:
        build(request, registry, progress)
        scores = score(request.zip, truth, load_manifest(manifest), progress=progress)
    cells = {}
    for crop, of_crop in described.crops.items():
        cells[f"patches of {crop}"] = f"{sum(job.patches for job in of_crop.jobs):,}"
    cells |= {f"{name} IoU": f"{iou:.3f}" for name, iou in ious(request.zip, manifest, truth).items()}
    return cells | {"score": f"{scores.overall.score:.4f}"}


def ious(submission: Path, manifest: Path, truth: Path) -> dict[str, float]:
    """Of each array, the share of the voxels in prediction or truth that are in both."""
    found = {}
    with Submission.open(submission) as submitted:
        for target in load_manifest(manifest):
            for name in target.classes:
                here = submitted.read(target.group, name, target.grid.box) > 0
                there = open_volume(truth / target.group / name).read(target.grid.box) > 0
                found[f"{target.crop} {name}"] = np.count_nonzero(here & there) / np.count_nonzero(here | there)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.windows", description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/windows"))
    parser.add_argument("--registry", metavar="URI", help="holds windows-fly and windows-hippocampus: train nothing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{(arguments.out / 'mlflow.db').resolve()}"
    registry, began = Registry(arguments.registry or database), time.monotonic()
    if arguments.registry is None:
        trained(arguments.root, registry, arguments.out / "training")
        steps = " and ".join(changes["steps"] for changes in NETWORKS.values())
        console.line(f"trained for {steps} steps in {(time.monotonic() - began) / 60:.1f} min: far from done")
    began = time.monotonic()
    table = Table(title="overlap and context on the validation crops")
    for number, (context, overlap) in enumerate(product((True, False), OVERLAPS)):
        cells = measure(arguments.root, registry, arguments.out / f"{overlap}-{context}", overlap, context=context)
        if number == 0:
            for column in ("overlap", "context", *cells):
                table.add_column(column)
        table.add_row(f"{overlap:g}", "on" if context else "off", *cells.values())
    console.show([table])
    console.line(f"{len(table.rows)} builds in {(time.monotonic() - began) / 60:.1f} min")


if __name__ == "__main__":
    main()
