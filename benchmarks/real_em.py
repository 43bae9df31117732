"""Real EM, end to end: train two specialists, build the validation crops by every option, compare with truth.

``python -m benchmarks.real_em ROOT --out DIR``: ROOT holds ``{dataset}/{dataset}.zarr`` in the challenge's layout,
``validation_manifest.csv`` and ``validation_truth.zarr``. Prints what ``benchmarks.options`` prints, minutes and
peak memory.
"""

import argparse
import resource
import time
from importlib.resources import files
from pathlib import Path

from benchmarks.options import Case, compare
from ensemble.cli import bars, console
from ensemble.train import load_spec, train
from registry import Registry

SPECS = ("fly_brain_mito.yaml", "hippocampus.yaml")
RECIPE = {
    "sources": {
        "fly": {"model": "models:/fly-brain-mito@champion"},
        "hippocampus": {"model": "models:/hippocampus@champion"},
    },
    "defaults": {"source": "hippocampus"},
    "classes": {"mito": {"when": [{"dataset": "fly-brain", "source": "fly"}]}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/real-em"))
    arguments = parser.parse_args()
    registry, started = Registry(), time.monotonic()
    for name in SPECS:
        spec = load_spec(Path(str(files("recipes"))) / "train" / name)
        with bars.progress() as progress:
            progress.stage(f"train {spec.name}", spec.steps)
            train(
                spec,
                data_root=arguments.root,
                registry=registry,
                work=arguments.out / "training",
                progress=progress.at,
            )
    trained = time.monotonic()
    case = Case(
        RECIPE,
        manifest=arguments.root / "validation_manifest.csv",
        truth=arguments.root / "validation_truth.zarr",
        data_root=arguments.root,
        out=arguments.out,
        min_distance_nm=120,
        min_size_nm3=500_000,
    )
    compare(case, registry)
    minutes = ((trained - started) / 60, (time.monotonic() - trained) / 60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.line(f"training {minutes[0]:.1f} min, four builds {minutes[1]:.1f} min, peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
