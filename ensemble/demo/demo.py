"""The main job end to end on a phantom: write EM, train three specialists, register them, build, check."""

from importlib.resources import files
from pathlib import Path

from ensemble.build.building import Built, build
from ensemble.demo import dataset as phantom
from ensemble.plan.request import Request
from ensemble.report import report
from ensemble.scoring.scores import Scores
from ensemble.support.progress import Progress
from ensemble.train import spec as training_spec
from ensemble.train.training import train
from registry.store import Store

SPECS = ("demo_mito.yaml", "demo_nuc.yaml", "demo_multi.yaml")


def run_demo(out: Path, progress: Progress, *, prepare_only: bool = False) -> tuple[Built, Scores] | None:
    """The demo under ``out``: data/, manifest.csv, truth.zarr, registered specialists, submission.zip, report.html.

    What is there already is not made again. With ``prepare_only`` it stops before the build.
    """
    store = Store()
    if not (out / "manifest.csv").exists():
        _write_phantom(out, progress)
    for name in SPECS:
        spec = training_spec.load_spec(Path(str(files("recipes"))) / "train" / name)
        progress.stage(f"train {spec.name}", spec.steps)
        train(spec, data_root=out / "data", store=store, work=out / "training", progress=progress.at)
    if prepare_only:
        return None
    manifest = out / "manifest.csv"
    built = build(Request("demo.yaml", out, manifest=manifest, data_root=str(out / "data")), store, progress)
    return built, report.make_report(out, store, truth=out / "truth.zarr", progress=progress)


def _write_phantom(out: Path, progress: Progress) -> None:
    progress.stage("write the phantom", len(phantom.SAMPLES))
    told = iter(range(len(phantom.SAMPLES) + 1))
    phantom.write(out, progress=lambda what: progress.at(next(told), what))
