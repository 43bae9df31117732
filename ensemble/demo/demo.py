"""The main job end to end on a phantom: write EM, train three specialists, register them, build, check, score."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ensemble.build import Built, build
from ensemble.demo.dataset import SAMPLES, write_phantom
from ensemble.plan import Request, registry_in
from ensemble.report import make_report
from ensemble.scoring import Scores
from ensemble.support import Progress
from ensemble.train import load_spec, train

_SHIPPED = Path(str(files("recipes")))
RECIPE = _SHIPPED / "demo.yaml"
"""The demo's own, whatever lies under that name where it is run."""
SPECS = ("demo_mito.yaml", "demo_nuc.yaml", "demo_multi.yaml")


@dataclass(frozen=True)
class FinishedDemo:
    """The demo's build, and its scores on the phantom's truth."""

    built: Built
    scores: Scores | None


def prepare_demo(out: Path, progress: Progress) -> None:
    """data/, manifest.csv and truth.zarr under ``out``, and the specialists in a registry that lies there too.

    So nobody takes them for models of real tissue. What is there already is not made again.
    """
    if not (out / "manifest.csv").exists():
        progress.stage("write the phantom", len(SAMPLES))
        written = iter(range(len(SAMPLES) + 1))
        write_phantom(out, progress=lambda dataset: progress.at(next(written), dataset))
    registry = registry_in(out)
    for name in SPECS:
        spec = load_spec(_SHIPPED / "train" / name)
        progress.stage(f"train {spec.name}", spec.steps)
        train(spec, data_root=out / "data", registry=registry, work=out / "training", progress=progress.at)


def run_demo(out: Path, progress: Progress) -> FinishedDemo:
    """The demo under ``out``: what ``prepare_demo`` makes, submission.zip, report.html and scores.json."""
    prepare_demo(out, progress)
    registry = registry_in(out)
    request = Request(RECIPE, out, manifest=out / "manifest.csv", data_root=str(out / "data"))
    built = build(request, registry, progress)
    return FinishedDemo(built, make_report(out, registry, truth=out / "truth.zarr", progress=progress))
