"""The commands that make something: build, plan, doctor, tune, train, postprocess, clean, demo."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.cli import bars, console
from ensemble.cli.options import (
    Commands,
    add_engine,
    add_request,
    add_resources,
    budget_of,
    command,
    default_out,
    engine_of,
    request_of,
)
from ensemble.cli.plan_tables import plan_tables, tuning_tables
from ensemble.support import EXIT_FAULTS_FOUND, EnsembleError, QuietProgress, counted

if TYPE_CHECKING:
    pass

_MOST_TRIALS, _MOST_MINUTES = 100_000, 525_600


def add_build_commands(commands: Commands) -> None:
    """Add them all."""
    for add in (_add_build, _add_plan, _add_doctor, _add_tune, _add_train, _add_postprocess, _add_clean, _add_demo):
        add(commands)


def _add_build(commands: Commands) -> None:
    parser = command(commands, "build", _build, "Build the submission that a recipe describes, and check it.")
    add_request(parser)
    _add_out(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace even the submission of another recipe or selection"
    )
    add_engine(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: build/NAME of the recipe, of a part build/NAME--crop902"
    )


def _build(arguments: argparse.Namespace) -> int:
    from ensemble.build import build
    from ensemble.plan import registry_of
    from ensemble.report import make_report

    out = arguments.out or default_out(arguments)
    registry = registry_of(out)
    with engine_of(arguments) as engine, bars.progress() as progress:
        request = replace(request_of(arguments, out, engine), overwrite=arguments.overwrite)
        built = build(request, registry, progress, engine)
        if built.run_id is not None or not request.has_report:
            make_report(out, registry, progress=progress)
    console.report(built.report)
    if built.left_out:
        console.line(f"partial: not for upload, {counted(built.left_out, 'array')} of the manifest left out")
    console.line(f"submission: {request.zip}   report: {out / 'report.html'}   lock: {request.lock}")
    if built.run_id is not None:
        console.line(f"recorded as MLflow run {built.run_id} in {registry.address}")
    return EXIT_FAULTS_FOUND if built.report.faults else 0


def _add_plan(commands: Commands) -> None:
    parser = command(commands, "plan", _plan, "Show what a recipe would do and cost; runs nothing.")
    add_request(parser)
    parser.add_argument("--json", action="store_true", help="for machines")


def _plan(arguments: argparse.Namespace) -> int:
    from ensemble.plan import prepare, registry_of
    from ensemble.predict import Predictor, found_in_words, time_networks

    request = request_of(arguments, default_out(arguments))
    registry = registry_of(request.out)
    prepared = prepare(request, registry)
    plan, predictor = prepared.plan, Predictor.of(request, prepared, registry, QuietProgress())
    left = predictor.open_jobs
    if prepared.hours(left).untimed:
        with bars.progress() as progress:
            time_networks(request, prepared, registry, progress, left, predictor.uses)
    unlike = [entry.warning for entry in predictor.unlike_ranges()]
    hours, found = prepared.hours(left), len(plan.jobs) - len(left)
    if arguments.json:
        prepared = replace(prepared, warnings=(*prepared.warnings, *unlike))
        said = prepared.described(request.budget, hours, predictor.uses).as_plain()
        print(json.dumps({**said, "predictions_found": found}, indent=1))
    else:
        console.show(plan_tables(plan, request.budget))
        if plan.jobs:
            console.line(f"{found_in_words(found, len(plan.jobs))} ({request.predictions})")
        for source, use in predictor.uses.items():
            console.line(f"{source} runs in {use.in_words}")
        console.line(hours.in_words)
        if plan.left_out:
            console.line(f"partial: not for upload, {counted(plan.left_out, 'array')} of the manifest left out")
        console.warnings((*prepared.warnings, *unlike))
    request.budget.check(plan)
    return 0


def _add_doctor(commands: Commands) -> None:
    text = "Look for what stands in the way of a build: machine, registry, data, recipe, memory, disk."
    parser = command(commands, "doctor", _doctor, text)
    add_request(parser, recipe_needed=False)
    _add_out(parser)


def _doctor(arguments: argparse.Namespace) -> int:
    from ensemble.build import diagnose
    from ensemble.plan import registry_of
    from registry import Registry

    out = arguments.out or (default_out(arguments) if arguments.recipe else None)
    request = request_of(arguments, out) if arguments.recipe and out else None
    wrong = 0
    for finding in diagnose(Registry() if out is None else registry_of(out), request):
        console.finding(finding)
        wrong += finding.state == "wrong"
    console.line(f"{counted(wrong, 'thing')} to mend first" if wrong else "nothing stands in the way")
    return EXIT_FAULTS_FOUND if wrong else 0


def _add_tune(commands: Commands) -> None:
    text = "Find the recipe that scores best on validation truth, by gains that held-out truth confirms."
    parser = command(commands, "tune", _tune, text)
    add_request(parser)
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="TRUTH.zarr", help="a plain array per crop and class"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="TUNED.yaml", help="the recipe to write")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where work lies (default: build/<recipe>-tune)")
    parser.add_argument("--trials", type=int, default=24, metavar="N", help="of each search of an instance class")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no prediction and no trial later than that")
    parser.add_argument("--force", action="store_true", help="also on crops that models were trained on; it is noted")
    parser.add_argument("--no-tta", action="store_true", help="do not try test-time augmentation")
    parser.add_argument(
        "--all-models", action="store_true", help="also registered models that the recipe does not name"
    )
    parser.add_argument("--plan", action="store_true", help="only show what would be tried, and the hours it takes")
    add_engine(parser)


def _tune(arguments: argparse.Namespace) -> int:
    from ensemble.tune import TuningTask, plan_tuning, tune
    from registry import Registry

    work = arguments.work or default_out(arguments, "-tune")
    if not 1 <= arguments.trials <= _MOST_TRIALS:
        raise EnsembleError(f"--trials {arguments.trials}: say a number from 1 to {_MOST_TRIALS:,}")
    if arguments.minutes is not None and not 0 <= arguments.minutes <= _MOST_MINUTES:
        raise EnsembleError(f"--minutes {arguments.minutes:g}: say a number from 0 to {_MOST_MINUTES:,}")
    with engine_of(arguments) as engine:
        task = TuningTask(
            request=request_of(arguments, work, engine),
            truth=arguments.truth,
            to=arguments.out,
            trials=arguments.trials,
            minutes=arguments.minutes,
            force=arguments.force,
            augment=not arguments.no_tta,
            registered=arguments.all_models,
        )
        if arguments.plan:
            console.show(tuning_tables(plan_tuning(task, Registry()), task))
            return 0
        with bars.progress() as progress:
            tuned = tune(task, Registry(), progress, engine)
    console.tuned(tuned)
    return 0


def _add_train(commands: Commands) -> None:
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
    from ensemble.train import is_helper, load_spec, train
    from registry import Registry

    spec = load_spec(arguments.spec, dict(arguments.set))
    with bars.progress(show=not is_helper(arguments.work / spec.name)) as progress:
        progress.stage(f"train {spec.name}", spec.steps)
        version = train(spec, data_root=arguments.data, registry=Registry(), work=arguments.work, progress=progress.at)
    console.models([version], "")
    return 0


def _add_postprocess(commands: Commands) -> None:
    text = "Post-process a tree of predictions into another: masks, connected components or watershed."
    parser = command(commands, "postprocess", _postprocess, text)
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--method", choices=["binary", "components", "watershed"], required=True)
    parser.add_argument("--recipe", metavar="RECIPE", help="thresholds and chains by class (default: the guide's)")
    add_resources(parser)


def _postprocess(arguments: argparse.Namespace) -> int:
    from ensemble.build import postprocess

    budget = budget_of(arguments)
    with bars.progress() as progress:
        done = postprocess(
            arguments.predictions,
            arguments.out,
            arguments.method,
            recipe=arguments.recipe,
            budget=budget,
            progress=progress,
        )
    console.line(f"{counted(done, 'array')} written under {arguments.out}")
    return 0


def _add_clean(commands: Commands) -> None:
    text = "Show and free what a recipe no longer needs of its build, and stored predictions that no build needs."
    parser = command(commands, "clean", _clean, text)
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build, or the folder that holds builds")
    parser.add_argument("--all", action="store_true", help="also what the next build would go on from")
    parser.add_argument("--dry-run", action="store_true", help="only show")


def _clean(arguments: argparse.Namespace) -> int:
    from ensemble.build import free, leftovers

    paths = leftovers(arguments.out, everything=arguments.all)
    if not arguments.dry_run:
        free(arguments.out, paths)
    console.leftovers(paths, freed=not arguments.dry_run)
    return 0


def _add_demo(commands: Commands) -> None:
    text = "Make the demo: synthetic EM, three small specialists, one submission."
    parser = command(commands, "demo", _demo, text)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR")
    parser.add_argument("--prepare", action="store_true", help="only write the data and train the specialists")


def _demo(arguments: argparse.Namespace) -> int:
    from ensemble.cli.score_tables import score_tables
    from ensemble.demo import prepare_demo, run_demo
    from ensemble.plan import registry_in

    with bars.progress() as progress:
        if arguments.prepare:
            prepare_demo(arguments.out, progress)
            return 0
        finished = run_demo(arguments.out, progress)
    console.report(finished.built.report)
    if finished.scores is not None:
        console.show(score_tables(finished.scores, which="all"))
    console.line(f"submission: {arguments.out / 'submission.zip'}   report: {arguments.out / 'report.html'}")
    console.line(f"its models are in a registry of their own: {registry_in(arguments.out).address}")
    return EXIT_FAULTS_FOUND if finished.built.report.faults else 0
