"""The command line: parse, call, exit code. Wrong input is one line on stderr and exit code 2."""

import argparse
import errno
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ensemble import cli_models, resources
from ensemble.cli_models import command as _command
from ensemble.errors import EXIT_FAULTS_FOUND, EXIT_INTERRUPTED, EXIT_WRONG_INPUT, EnsembleError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        if error.errno not in _FULL:
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
    _add_check(commands)
    _add_score(commands)
    cli_models.add(commands)
    _add_report(commands)
    _add_diff(commands)
    _add_view(commands)
    _add_tune(commands)
    _add_train(commands)
    _add_postprocess(commands)
    _add_clean(commands)
    _add_demo(commands)
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _add_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a path, or the name of a recipe that is shipped")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="what to predict (default: the challenge's own)")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder or URL of the EM (default: data)")
    parser.add_argument("--crops", type=_names, metavar="A,B", help="only these crops")
    parser.add_argument("--classes", type=_names, metavar="A,B", help="only these classes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--precision", choices=["32", "16", "bf16"], default="32", help="of the network's arithmetic")
    _add_resources(parser)
    parser.add_argument("--absent-is-zero", action="store_true", help="EM chunks never written are really black")
    parser.add_argument("--update-lock", action="store_true", help="take what the aliases mean now")


def _add_resources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=resources.cores(), help="threads (default: all cores)")
    half = resources.default_memory_bytes() / 2**30
    parser.add_argument(
        "--memory", type=float, default=half, metavar="GIB", help=f"to stay within (default: half, here {half:.1f})"
    )


def _budget(arguments: argparse.Namespace, *, on_cpu: bool = True):
    from ensemble.budget import Budget

    if arguments.workers < 1:
        raise EnsembleError(f"--workers {arguments.workers}: at least one thread is needed")
    if not arguments.memory > 0:
        raise EnsembleError(f"--memory {arguments.memory:g}: some memory is needed")
    return Budget(int(arguments.memory * 2**30), arguments.workers, on_cpu)


def _request(arguments: argparse.Namespace, out: Path):
    from ensemble.prepare import Request

    on_cpu = not resources.accelerated() if arguments.device == "auto" else arguments.device == "cpu"
    return Request(
        recipe=arguments.recipe,
        out=out,
        manifest=arguments.manifest,
        data_root=arguments.data,
        crops=arguments.crops,
        classes=arguments.classes,
        device=arguments.device,
        precision=arguments.precision,
        budget=_budget(arguments, on_cpu=on_cpu),
        absent_is_zero=arguments.absent_is_zero,
        update_lock=arguments.update_lock,
    )


def _add_build(commands) -> None:
    parser = _command(commands, "build", _build, "Build the submission that a recipe describes, and check it.")
    _add_request(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: build/<recipe's name>")


def _build(arguments: argparse.Namespace) -> int:
    from ensemble import recipe, terminal
    from ensemble.build import build
    from registry.store import Store

    out = arguments.out or Path("build") / recipe.load(arguments.recipe).name
    request, store = _request(arguments, out), Store()
    with terminal.progress() as progress:
        built = build(request, store, progress)
    terminal.report(built.report)
    terminal.line(f"submission: {request.zip}   report: {out / 'report.html'}   lock: {request.lock}")
    if built.run_id is not None:
        terminal.line(f"recorded as MLflow run {built.run_id} in {store.tracking_uri}")
    return EXIT_FAULTS_FOUND if built.report.faults else 0


def _add_plan(commands) -> None:
    parser = _command(commands, "plan", _plan, "Show what a recipe would do and cost; runs nothing.")
    _add_request(parser)
    parser.add_argument("--json", action="store_true", help="for machines")


def _plan(arguments: argparse.Namespace) -> int:
    from ensemble import describe, recipe, terminal
    from ensemble.prepare import prepare
    from registry.store import Store

    request = _request(arguments, Path("build") / recipe.load(arguments.recipe).name)
    plan = prepare(request, Store()).plan
    if arguments.json:
        print(json.dumps(describe.plan(plan, request.budget), indent=1))
    else:
        terminal.plan(plan, request.budget)
    request.budget.check(plan)
    return 0


def _add_check(commands) -> None:
    parser = _command(commands, "check", _check, "Check a submission's format, completeness and consistency.")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.zip")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="default: the challenge's own")
    parser.add_argument("--json", action="store_true", help="for machines")


def _check(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.check import check
    from ensemble.manifest import load

    with terminal.progress(show=not arguments.json) as progress:
        progress.stage("check", 1)
        report = check(
            arguments.submission, load(arguments.manifest), lambda done, total: progress.at(done / max(total, 1))
        )
    if arguments.json:
        print(report.to_json())
    else:
        terminal.report(report)
    return EXIT_FAULTS_FOUND if report.faults else 0


def _add_score(commands) -> None:
    parser = _command(commands, "score", _score, "Score a submission against truth, as the challenge does.")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.zip")
    parser.add_argument("--truth", required=True, metavar="TRUTH.zarr", help="a plain array per crop and class")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="default: the challenge's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores, under the official keys")
    parser.add_argument("--rules", metavar="NAME", help="default: the newest known")
    parser.add_argument("--metrics", choices=["official", "all"], default="official", help="all: also the field's own")
    parser.add_argument("--by-crop", action="store_true", help="also a table by crop")
    parser.add_argument("--against", type=Path, metavar="B.zip", help="show what changed from this submission")
    parser.add_argument(
        "--run", dest="run_id", metavar="RUN_ID", help="log the scores to this MLflow run, such as a build's"
    )
    _add_resources(parser)


def _score(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.manifest import load
    from ensemble.score import LATEST_RULES, Resources, score
    from ensemble.score_table import report
    from registry.store import Store

    budget = _budget(arguments)
    lent = Resources(budget.workers, budget.memory_bytes)
    targets, rules = load(arguments.manifest), arguments.rules or LATEST_RULES
    with terminal.progress() as progress:
        scored = [
            score(path, arguments.truth, targets, rules_name=rules, resources=lent, progress=progress)
            for path in (arguments.submission, arguments.against)
            if path is not None
        ]
    scores, against = scored[0], scored[1] if arguments.against else None
    if arguments.json:
        _write(arguments.json, scores.to_json(arguments.metrics) + "\n")
    terminal.show(report(scores, which=arguments.metrics, by_crop=arguments.by_crop, against=against))
    if arguments.run_id:
        Store().log_metrics(arguments.run_id, scores.flat())
    return 0


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in _FULL:
            raise
        raise EnsembleError(f"{path}: cannot write here: {error.strerror}") from error


def _add_report(commands) -> None:
    parser = _command(commands, "report", _report, "Make a build's report.html anew, with scores where truth is given.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--truth", type=Path, metavar="TRUTH.zarr", help="an array per crop and class")


def _report(arguments: argparse.Namespace) -> int:
    from ensemble import report, terminal
    from registry.store import Store

    with terminal.progress() as progress:
        page = report.again(arguments.out, Store(), truth=arguments.truth, progress=progress)
    terminal.line(f"report: {page}   facts: {page.with_name(report.FACTS)}")
    return 0


def _add_diff(commands) -> None:
    parser = _command(commands, "diff", _diff, "Show what changed between two submissions.")
    parser.add_argument("a", type=Path, metavar="A", help="a build's folder, or a zip")
    parser.add_argument("b", type=Path, metavar="B", help="a build's folder, or a zip")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="also as a page with pictures")


def _diff(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.diff import diff

    with terminal.progress() as progress:
        found = diff(arguments.a, arguments.b, page=arguments.page, progress=progress)
    terminal.difference(found)
    if arguments.page:
        terminal.line(f"page: {arguments.page}")
    return 0


def _add_view(commands) -> None:
    parser = _command(commands, "view", _view, "Open EM, probabilities and labels of a build in neuroglancer.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--crop", metavar="N", help="default: the first")
    parser.add_argument("--classes", type=_names, metavar="A,B", help="default: all that hold voxels")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--once", action="store_true", help="write link and state, and do not stay to serve")


def _view(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.view import open_viewer
    from registry.store import Store

    viewer = open_viewer(
        arguments.out, Store(), crop=arguments.crop, classes=arguments.classes, port=arguments.port, say=terminal.line
    )
    terminal.line(f"open {viewer.link}   (state: {viewer.state})")
    if not arguments.once:
        viewer.serve()
    return 0


def _add_tune(commands) -> None:
    text = "Find the recipe that scores best on validation truth, by gains that held-out truth confirms."
    parser = _command(commands, "tune", _tune, text)
    _add_request(parser)
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
    from ensemble import recipe, terminal
    from ensemble.tune import Task, tune
    from registry.store import Store

    work = arguments.work or Path("build") / f"{recipe.load(arguments.recipe).name}-tune"
    if arguments.trials < 1:
        raise EnsembleError(f"--trials {arguments.trials}: at least one is needed")
    task = Task(
        request=_request(arguments, work),
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
    parser = _command(commands, "train", _train, "Train a specialist and register it.")
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
    from ensemble import terminal, training_spec

    spec = training_spec.load(arguments.spec, dict(arguments.set))
    from ensemble.train import train
    from registry.store import Store

    with terminal.progress() as progress:
        progress.stage(f"train {spec.name}", spec.steps)
        version = train(spec, data_root=arguments.data, store=Store(), work=arguments.work, progress=progress.at)
    terminal.models([version], "")
    return 0


def _add_postprocess(commands) -> None:
    text = "Post-process a tree of predictions into another: masks, connected components or watershed."
    parser = _command(commands, "postprocess", _postprocess, text)
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--method", choices=["binary", "components", "watershed"], required=True)
    parser.add_argument("--recipe", metavar="RECIPE", help="thresholds and chains by class (default: the guide's)")
    _add_resources(parser)


def _postprocess(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.tree import postprocess

    budget = _budget(arguments)
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
    parser = _command(commands, "clean", _clean, text)
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--all", action="store_true", help="also what the next build would go on from")
    parser.add_argument("--dry-run", action="store_true", help="only show")


def _clean(arguments: argparse.Namespace) -> int:
    from ensemble import terminal
    from ensemble.clean import free, leftovers

    found = leftovers(arguments.out, everything=arguments.all)
    if not arguments.dry_run:
        free(arguments.out, found)
    terminal.leftovers(found, freed=not arguments.dry_run)
    return 0


def _add_demo(commands) -> None:
    text = "Make the demo: synthetic EM, three small specialists, one submission."
    parser = _command(commands, "demo", _demo, text)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR")
    parser.add_argument("--prepare", action="store_true", help="only write the data and train the specialists")


def _demo(arguments: argparse.Namespace) -> int:
    from ensemble import demo, terminal
    from ensemble.score_table import report

    with terminal.progress() as progress:
        finished = demo.run(arguments.out, progress, prepare_only=arguments.prepare)
    if finished is None:
        return 0
    built, scores = finished
    terminal.report(built.report)
    terminal.show(report(scores, which="all"))
    terminal.line(f"submission: {arguments.out / 'submission.zip'}   report: {arguments.out / 'report.html'}")
    return EXIT_FAULTS_FOUND if built.report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
