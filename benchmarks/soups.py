"""What averaging weights gains on real EM: fine-tuned members, their soups, and the mean along one run.

``python -m benchmarks.soups ROOT --out DIR``: ROOT as in ``benchmarks.real_em``. For each specialist of the real data
sets: the base is trained, three runs with other seeds begin from it at a tenth of the learning rate, and every soup
is scored on the validation crop. It is the same crop that greedy chooses by, so its figure flatters.
"""

import argparse
from pathlib import Path

from benchmarks.real_em import SPECS
from ensemble.cli import bars, console
from ensemble.core import load_manifest, write_manifest
from ensemble.train import TrainingSpec, load_spec, train
from ensemble.tune import AveragingOptions, Validation, average_checkpoints
from registry import Averaging, Card, ModelVersion, Registry, member_in_file, registered_member

SEEDS = (1, 2, 3)
STEPS, EVERY, KEPT = 1000, 200, 5


def learned(spec: TrainingSpec, root: Path, registry: Registry, work: Path) -> ModelVersion:
    """The spec's network, trained and registered."""
    with bars.progress() as progress:
        progress.stage(f"train {spec.name}", spec.steps)
        return train(spec, data_root=root, registry=registry, work=work, progress=progress.at)


def compare(name: str, root: Path, registry: Registry, out: Path) -> None:
    """A line for the base, each member, and each soup."""
    spec, work = load_spec(name), out / "training"
    base = learned(spec, root, registry, work)
    tuned = [
        learned(
            load_spec(
                name,
                {
                    "name": f"{spec.name}-{seed}",
                    "begin_from": f"models:/{spec.name}@champion",
                    "seed": str(seed),
                    "learning_rate": str(spec.learning_rate / 10),
                    "steps": str(STEPS),
                    "validate_every": str(EVERY),
                    "keep": str(KEPT),
                    "schedule": "constant" if seed == SEEDS[0] else "cosine",
                },
            ),
            root,
            registry,
            work,
        )
        for seed in SEEDS
    ]
    judged = _validation(root, base.card, out)
    members = [registered_member(registry, version) for version in (base, *tuned)]
    scores: dict[str, float] = {}
    hows: tuple[Averaging, ...] = ("uniform", "greedy")
    for how in hows:
        options = AveragingOptions(how)
        made = average_checkpoints(members, f"{spec.name}-{how}", options, registry, validation=judged)
        scores |= {**made.scores, how: made.scores["soup"], "mixed by greedy": len(made.members)}
    steps = sorted((work / tuned[0].name).glob("step-*.ckpt"))
    along = [member_in_file(step, tuned[0].card) for step in steps]
    options = AveragingOptions("ema", decay=0.5)
    made = average_checkpoints(along, f"{spec.name}-ema", options, registry, validation=judged)
    scores |= {f"ema of {len(along)} checkpoints of {tuned[0].name}": made.scores["soup"]}
    del scores["soup"]
    console.line(f"{spec.name}: mean score of its classes on the validation crop")
    for what, score in scores.items():
        console.line(f"  {what:60} {score:.4f}" if isinstance(score, float) else f"  {what:60} {score}")


def _validation(root: Path, card: Card, out: Path) -> Validation:
    targets = [t for t in load_manifest(root / "validation_manifest.csv") if t.dataset in card.datasets]
    write_manifest(out / f"{card.name}.csv", targets)
    return Validation(root / "validation_truth.zarr", out / f"{card.name}.csv", str(root))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soups", description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/soups"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in SPECS:
        compare(name.removesuffix(".yaml"), arguments.root, Registry(), arguments.out)


if __name__ == "__main__":
    main()
