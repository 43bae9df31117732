"""The command line: parse, call, exit code. Wrong input is one line on stderr and exit code 2."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ensemble.cli import model_commands as cli_models
from ensemble.cli import result_commands as cli_results
from ensemble.cli.options import add_request, add_resources, budget_of, command, request_of
from ensemble.cli.result_commands import FULL
from ensemble.support import machine as resources
from ensemble.support.errors import EXIT_FAULTS_FOUND, EXIT_INTERRUPTED, EXIT_WRONG_INPUT, EnsembleError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # threads that spin while they wait slow each other down several times where cores are shared
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    resources.keep_freed_memory()
    arguments = _parser().parse_args(cli_models.with_verb(sys.argv[1:] if argv is None else argv))
    if not os.environ.get("PYTHONWARNINGS"):
        warnings.filterwarnings("ignore")  # libraries' advice to programmers; ours goes through errors and say()
    try:
        return arguments.run(arguments)
    except EnsembleError as error:
        print(f"ensemble: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in FULL:
            if error.filename is None:
                raise
            print(f"ensemble: {error.filename}: {error.strerror}", file=sys.stderr)
            return EXIT_WRONG_INPUT
        where = f" ({error.filename})" if error.filename else ""
        print(f"ensemble: the disk is full{where}; free some space and run the same command again", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nensemble: interrupted; run the same command again to go on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ensemble", description="Build one consistent challenge submission from several trained models."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands)
    _add_plan(commands)
    cli_results.add(commands)
    cli_models.add(commands)
    _add_tune(commands)
    _add_train(commands)
    _add_postprocess(commands)
    _add_clean(commands)
    _add_demo(commands)
    return parser


def _add_build(commands) -> None:
    parser = command(commands, "build", _build, "Build the submission that a recipe describes, and check it.")
    add_request(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: build/<recipe's name>")


def _build(arguments: argparse.Namespace) -> int:
    from ensemble.build.building import build
    from ensemble.cli import console as terminal
    from ensemble.plan import recipe_reader as recipe_file
    from ensemble.report.report import make_report
    from registry.store import Store

    out = arguments.out or Path("build") / recipe_file.load_recipe(arguments.recipe).name
    request, store = request_of(arguments, out), Store()
    with terminal.progress() as progress:
        built = build(request, store, progress)
        if built.run_id is not None or not all(page.exists() for page in request.pages[:2]):
            make_report(out, store, progress=progress)
    terminal.report(built.report)
    terminal.line(f"submission: {request.zip}   report: {out / 'report.html'}   lock: {request.lock}")
    if built.run_id is not None:
        terminal.line(f"recorded as MLflow run {built.run_id} in {store.tracking_uri}")
    return EXIT_FAULTS_FOUND if built.report.faults else 0


def _add_plan(commands) -> None:
    parser = command(commands, "plan", _plan, "Show what a recipe would do and cost; runs nothing.")
    add_request(parser)
    parser.add_argument("--json", action="store_true", help="for machines")


def _plan(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.plan import describe
    from ensemble.plan import recipe_reader as recipe_file
    from ensemble.plan.request import prepare
    from registry.store import Store

    request = request_of(arguments, Path("build") / recipe_file.load_recipe(arguments.recipe).name)
    plan = prepare(request, Store()).plan
    if arguments.json:
        print(json.dumps(describe.describe_plan(plan, request.budget), indent=1))
    else:
        terminal.plan(plan, request.budget)
    request.budget.check(plan)
    return 0


def _add_tune(commands) -> None:
    text = "Find the recipe that scores best on validation truth, by gains that held-out truth confirms."
    parser = command(commands, "tune", _tune, text)
    add_request(parser)
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="TRUTH.zarr", help="a plain array per crop and class"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="TUNED.yaml", help="the recipe to write")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where work lies (default: build/<recipe>-tune)")
    parser.add_argument("--trials", type=int, default=24, metavar="N", help="of each search of an instance class")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no trial later than that after predicting")
    parser.add_argument("--force", action="store_true", help="also on crops that models were trained on; it is noted")
    parser.add_argument("--no-tta", action="store_true", help="do not try test-time augmentation")
    parser.add_argument("--only-recipe", action="store_true", help="no registered model that the recipe does not name")


def _tune(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.plan import recipe_reader as recipe_file
    from ensemble.tune.tuning import TuningTask, tune
    from registry.store import Store

    work = arguments.work or Path("build") / f"{recipe_file.load_recipe(arguments.recipe).name}-tune"
    if arguments.trials < 1:
        raise EnsembleError(f"--trials {arguments.trials}: at least one is needed")
    task = TuningTask(
        request=request_of(arguments, work),
        truth=arguments.truth,
        to=arguments.out,
        trials=arguments.trials,
        minutes=arguments.minutes,
        force=arguments.force,
        augment=not arguments.no_tta,
        registered=not arguments.only_recipe,
    )
    store = Store()
    with terminal.progress() as progress:
        tuned = tune(task, store, progress)
    terminal.tuned(tuned)
    return 0


def _add_train(commands) -> None:
    parser = command(commands, "train", _train, "Train a specialist and register it.")
    parser.add_argument("spec", metavar="SPEC.yaml", help="a path, or the name of a spec that is shipped")
    parser.add_argument(
        "--set", action="append", type=_change, default=[], metavar="KEY=VALUE", help="instead of what the spec says"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="ROOT", help="default: data")
    parser.add_argument("--work", type=Path, default=Path("build/training"), metavar="DIR", help="checkpoints go here")


def _change(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE, such as steps=100")
    return key.strip(), value


def _train(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.train import spec as training_spec

    spec = training_spec.load_spec(arguments.spec, dict(arguments.set))
    from ensemble.train.training import train
    from registry.store import Store

    with terminal.progress() as progress:
        progress.stage(f"train {spec.name}", spec.steps)
        version = train(spec, data_root=arguments.data, store=Store(), work=arguments.work, progress=progress.at)
    terminal.models([version], "")
    return 0


def _add_postprocess(commands) -> None:
    text = "Post-process a tree of predictions into another: masks, connected components or watershed."
    parser = command(commands, "postprocess", _postprocess, text)
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--method", choices=["binary", "components", "watershed"], required=True)
    parser.add_argument("--recipe", metavar="RECIPE", help="thresholds and chains by class (default: the guide's)")
    add_resources(parser)


def _postprocess(arguments: argparse.Namespace) -> int:
    from ensemble.build.standalone import postprocess
    from ensemble.cli import console as terminal

    budget = budget_of(arguments)
    with terminal.progress() as progress:
        done = postprocess(
            arguments.predictions,
            arguments.out,
            arguments.method,
            recipe=arguments.recipe,
            budget=budget,
            progress=progress,
        )
    terminal.line(f"{done} arrays written under {arguments.out}")
    return 0


def _add_clean(commands) -> None:
    text = "Show and free what a build keeps to go on from and its recipe no longer needs."
    parser = command(commands, "clean", _clean, text)
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--all", action="store_true", help="also what the next build would go on from")
    parser.add_argument("--dry-run", action="store_true", help="only show")


def _clean(arguments: argparse.Namespace) -> int:
    from ensemble.build.cleanup import free, leftovers
    from ensemble.cli import console as terminal

    found = leftovers(arguments.out, everything=arguments.all)
    if not arguments.dry_run:
        free(arguments.out, found)
    terminal.leftovers(found, freed=not arguments.dry_run)
    return 0


def _add_demo(commands) -> None:
    text = "Make the demo: synthetic EM, three small specialists, one submission."
    parser = command(commands, "demo", _demo, text)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR")
    parser.add_argument("--prepare", action="store_true", help="only write the data and train the specialists")


def _demo(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.cli.score_tables import report
    from ensemble.demo import demo

    with terminal.progress() as progress:
        finished = demo.run_demo(arguments.out, progress, prepare_only=arguments.prepare)
    if finished is None:
        return 0
    built, scores = finished
    terminal.report(built.report)
    terminal.show(report(scores, which="all"))
    terminal.line(f"submission: {arguments.out / 'submission.zip'}   report: {arguments.out / 'report.html'}")
    return EXIT_FAULTS_FOUND if built.report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
