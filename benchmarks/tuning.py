"""Tuning on the demo's phantom, with specialists whose best routes and thresholds are known.

``python -m benchmarks.tuning`` (after ``ensemble demo --prepare``): three sources are made of the phantom's truth: one
is sure of mito, one of nuc, and both are unsure of the other; the third alone knows er, its logits off by 2. Prints
what tuning chose beside what is known to be best, and what it cost.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zarr
from scipy import ndimage

from ensemble.cli import bars, console
from ensemble.core import Target, load_manifest, write_manifest
from ensemble.plan import Request, route_in_words
from ensemble.storage import open_volume
from ensemble.support import dump_yaml
from ensemble.tune import TuningTask, tune
from registry import Registry

CLASSES = ("mito", "nuc", "er")
SURE, UNSURE, OFFSET = 1.0, 4.0, 2.0
SOURCES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "of_mito": {"mito": (SURE, 0), "nuc": (UNSURE, 0), "er": (3 * UNSURE, 0)},
    "of_nuc": {"mito": (UNSURE, 0), "nuc": (SURE, 0), "er": (3 * UNSURE, 0)},
    "biased": {"mito": (UNSURE, 0), "nuc": (UNSURE, 0), "er": (2 * SURE, OFFSET)},
}
KNOWN = {"mito": "of_mito", "nuc": "of_nuc", "er": "biased, its threshold above 0.5"}


def write(target: Target, truth: Path, root: Path) -> None:
    """The sources' probabilities of one crop."""
    for name in target.classes:
        inside = np.asarray(open_volume(truth / target.group / name).read(target.grid.box)) > 0
        for index, (source, classes) in enumerate(SOURCES.items()):
            noise, offset = classes[name]
            seed = 10 * CLASSES.index(name) + index
            logit = np.where(inside, 4.0, -4.0).astype(np.float32) + np.float32(offset)
            chance = np.random.default_rng(seed).standard_normal(inside.shape, dtype=np.float32)
            blurred = ndimage.gaussian_filter(chance, 1.0)
            p = 1 / (1 + np.exp(-(logit + noise * blurred / blurred.std())))
            zarr.create_array(
                str(root / source / target.group / name),
                data=np.rint(255 * p).astype(np.uint8),
                chunks=(64, 64, 64),
                zarr_format=2,
                attributes={
                    "voxel_size": list(target.grid.voxel_size_nm),
                    "translation": list(target.grid.origin_nm),
                },
                overwrite=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, default=Path("build/tuning"))
    arguments = parser.parse_args()
    out, demo = arguments.out, arguments.demo
    targets = []
    for t in load_manifest(demo / "manifest.csv"):
        there = tuple(name for name in CLASSES if (demo / "truth.zarr" / t.group / name).exists())
        targets.append(Target(t.crop, t.dataset, t.grid, there))
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / "manifest.csv", targets)
    for target in targets:
        write(target, demo / "truth.zarr", out / "known")
    templates = {s: {"predictions": f"{(out / 'known').resolve()}/{s}/{{crop}}/{{class}}"} for s in SOURCES}
    recipe = {"name": "known", "sources": templates, "defaults": {"source": "of_mito"}, "consistency": "none"}
    (out / "known.yaml").write_text(dump_yaml(recipe))
    request = Request(out / "known.yaml", out / "work", out / "manifest.csv", str(demo / "data"))
    began = time.monotonic()
    task = TuningTask(request, demo / "truth.zarr", out / "tuned.yaml")
    with bars.progress() as progress:
        made = tune(task, Registry(), progress)
    for result in made.results:
        known = KNOWN[result.unit.name]
        console.line(f"{result.unit.label:6} known best: {known:32} chosen: {route_in_words(result.chosen.route)}")
        console.line(f"       folds {result.chosen.before:.4f} -> {result.chosen.after:.4f}, {result.chosen.why}")
    console.line(f"overall {made.overall_before:.4f} -> {made.overall_after:.4f} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
