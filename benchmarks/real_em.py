"""Real EM, end to end: train two specialists, build the validation crops by every option, compare with truth.

``python -m benchmarks.real_em ROOT --out DIR``: ROOT holds ``{dataset}/{dataset}.zarr`` in the challenge's layout,
``validation_manifest.csv`` and ``validation_truth.zarr``. Prints, for options 1, 2, 3 and joint decoding, IoU per
class and mito objects matched at IoU >= 0.5, and minutes and peak memory.
"""

import argparse
import resource
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ensemble import manifest, terminal, training_spec
from ensemble.build import Request, build
from ensemble.manifest import Target
from ensemble.score import score
from ensemble.submission import Submission
from ensemble.train import train
from ensemble.volume import open_volume
from registry.store import Store

SPECS = ("fly_brain_mito.yaml", "hippocampus.yaml")
CLASSES = ("mito", "mito_mem", "mito_lum", "pm", "ves")
LABELLED = {
    "option 1": ("none", []),
    "option 2": ("none", ["components", {"drop_small": {"min_size_nm3": 500_000}}]),
    "option 3": ("none", [{"watershed": {"min_distance_nm": 120}}, {"drop_small": {"min_size_nm3": 500_000}}]),
    "joint": ("joint", ["components", {"drop_small": {"min_size_nm3": 500_000}}]),
}
"""Consistency and mito's post-processing of each option."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/real-em"))
    arguments = parser.parse_args()
    store, started = Store(), time.monotonic()
    for name in SPECS:
        spec = training_spec.load(Path(str(files("recipes"))) / "train" / name)
        with terminal.progress() as progress:
            progress.stage(f"train {spec.name}", spec.steps)
            train(spec, data_root=arguments.root, store=store, work=arguments.out / "training", progress=progress.at)
    trained = time.monotonic()
    rows = {option: _score(option, arguments.root, arguments.out, store) for option in LABELLED}
    _print(rows)
    minutes = ((trained - started) / 60, (time.monotonic() - trained) / 60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    terminal.line(f"training {minutes[0]:.1f} min, four builds {minutes[1]:.1f} min, peak memory {peak:.1f} GiB")


def _score(option: str, root: Path, out: Path, store: Store) -> dict[str, str]:
    """Build one option; IoU per class, and mito objects matched."""
    consistency, chain = LABELLED[option]
    folder = out / option.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(_recipe(option, consistency, chain))
    path = root / "validation_manifest.csv"
    with terminal.progress() as progress:
        build(Request(recipe, folder, manifest=path, data_root=str(root)), store, progress)
    inter, union, matched, objects = Counter(), Counter(), 0, 0
    with Submission.open(folder / "submission.zip") as submission:
        for target in manifest.load(path):
            for name in target.classes:
                truth = _truth(root, target, name)
                found = submission.read(target.group, name, tuple(slice(0, n) for n in truth.shape))
                inter[name] += int(((truth > 0) & (found > 0)).sum())
                union[name] += int(((truth > 0) | (found > 0)).sum())
                if name == "mito":
                    hits, there = _matched(truth, found)
                    matched, objects = matched + hits, objects + there
    ious = {name: f"{inter[name] / max(union[name], 1):.3f}" for name in CLASSES}
    official = score(folder / "submission.zip", root / "validation_truth.zarr", manifest.load(path))
    scores = {"mito score": official.by_class["mito"], "overall": official.overall.score}
    return {**ious, "objects": f"{matched} of {objects}", **{key: f"{value:.3f}" for key, value in scores.items()}}


def _recipe(option: str, consistency: str, chain: list) -> str:
    from ensemble import yamlfile

    return yamlfile.dump(
        {
            "name": f"real-em-{option.replace(' ', '-')}",
            "sources": {
                "fly": {"model": "models:/fly-brain-mito@champion"},
                "hippocampus": {"model": "models:/hippocampus@champion"},
            },
            "defaults": {"source": "hippocampus"},
            "classes": {
                "mito": {"postprocess": chain, "when": [{"dataset": "fly-brain", "source": "fly"}]},
            },
            "consistency": consistency,
        }
    )


def _truth(root: Path, target: Target, name: str) -> np.ndarray:
    volume = open_volume(root / "validation_truth.zarr" / target.group / name)
    return volume.read(tuple(slice(0, n) for n in volume.grid.shape))


def _matched(truth: np.ndarray, found: np.ndarray) -> tuple[int, int]:
    """Truth objects with a predicted object at IoU >= 0.5, and truth objects there are."""
    import cc3d

    parts = cc3d.connected_components(found, connectivity=26)
    pairs, overlaps = np.unique(np.stack([truth.ravel(), parts.ravel()]).astype(np.int64), axis=1, return_counts=True)
    sizes_t, sizes_p = np.bincount(truth.ravel()), np.bincount(parts.ravel())
    hits = {
        int(t)
        for (t, p), n in zip(pairs.T, overlaps, strict=True)
        if t and p and n / (sizes_t[t] + sizes_p[p] - n) >= 0.5
    }
    return len(hits), int((sizes_t[1:] > 0).sum())


def _print(rows: dict[str, dict[str, str]]) -> None:
    table = Table("option", *(f"{name} IoU" for name in CLASSES), "mito objects matched", "mito score", "overall score")
    for option, row in rows.items():
        table.add_row(option, *row.values())
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
