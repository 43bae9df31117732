"""The commands about a submission that is there: check, score, report, diff, view."""

import argparse
from pathlib import Path

from ensemble.cli import bars, console
from ensemble.cli.options import Commands, add_resources, budget_of, command, names
from ensemble.support import EXIT_FAULTS_FOUND, EnsembleError, is_disk_full, write_text


def add_result_commands(commands: Commands) -> None:
    """Add them all."""
    for add in (_add_check, _add_score, _add_report, _add_diff, _add_view):
        add(commands)


def _add_check(commands: Commands) -> None:
    parser = command(commands, "check", _check, "Check a submission's format, completeness and consistency.")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.zip", help="or a build's folder")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="default: the challenge's own")
    parser.add_argument("--json", action="store_true", help="for machines")


def _check(arguments: argparse.Namespace) -> int:
    from ensemble.core import load_manifest
    from ensemble.submission import check, submission_at

    with bars.progress(show=not arguments.json) as progress:
        progress.stage("check", 1)
        report = check(
            submission_at(arguments.submission),
            load_manifest(arguments.manifest),
            lambda done, total: progress.at(done / max(total, 1)),
        )
    if arguments.json:
        print(report.to_json())
    else:
        console.report(report)
    return EXIT_FAULTS_FOUND if report.faults else 0


def _add_score(commands: Commands) -> None:
    parser = command(commands, "score", _score, "Score a submission against truth, as the challenge does.")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.zip", help="or a build's folder")
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
    add_resources(parser)


def _score(arguments: argparse.Namespace) -> int:
    from ensemble.cli.score_tables import score_tables
    from ensemble.core import load_manifest
    from ensemble.scoring import LATEST_RULES, ScoringLimits, score
    from ensemble.submission import submission_at
    from registry import Registry

    budget = budget_of(arguments)
    limits = ScoringLimits(budget.workers, budget.memory_bytes)
    targets, rules = load_manifest(arguments.manifest), arguments.rules or LATEST_RULES
    with bars.progress() as progress:
        scored = [
            score(submission_at(path), arguments.truth, targets, rules_name=rules, limits=limits, progress=progress)
            for path in (arguments.submission, arguments.against)
            if path is not None
        ]
    scores, against = scored[0], scored[1] if arguments.against else None
    if arguments.json:
        _write(arguments.json, scores.to_json(arguments.metrics) + "\n")
    console.show(score_tables(scores, which=arguments.metrics, by_crop=arguments.by_crop, against=against))
    if arguments.run_id:
        runs = Registry().runs
        runs.add(arguments.run_id, scores.flat())
        runs.add_table(arguments.run_id, "scores.json", scores.table())
    return 0


def _add_report(commands: Commands) -> None:
    parser = command(commands, "report", _report, "Make a build's report.html anew, with scores where truth is given.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--truth", type=Path, metavar="TRUTH.zarr", help="an array per crop and class")


def _report(arguments: argparse.Namespace) -> int:
    from ensemble.plan import registry_of
    from ensemble.report import REPORT_FACTS, REPORT_PAGE, make_report

    with bars.progress() as progress:
        make_report(arguments.out, registry_of(arguments.out), truth=arguments.truth, progress=progress)
    console.line(f"report: {arguments.out / REPORT_PAGE}   facts: {arguments.out / REPORT_FACTS}")
    return 0


def _add_diff(commands: Commands) -> None:
    parser = command(commands, "diff", _diff, "Show what changed between two submissions.")
    parser.add_argument("a", type=Path, metavar="A", help="a build's folder, or a zip")
    parser.add_argument("b", type=Path, metavar="B", help="a build's folder, or a zip")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="also as a page with pictures")


def _diff(arguments: argparse.Namespace) -> int:
    from ensemble.report import diff

    with bars.progress() as progress:
        difference = diff(arguments.a, arguments.b, page=arguments.page, progress=progress)
    console.difference(difference)
    if arguments.page:
        console.line(f"page: {arguments.page}")
    return 0


def _add_view(commands: Commands) -> None:
    parser = command(commands, "view", _view, "Open EM, probabilities and labels of a build in neuroglancer.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--crop", metavar="N", help="default: the first")
    parser.add_argument("--classes", type=names, metavar="A,B", help="default: all that hold voxels")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--once", action="store_true", help="write link and state, and do not stay to serve")


def _view(arguments: argparse.Namespace) -> int:
    from ensemble.plan import registry_of
    from ensemble.report import open_viewer

    viewer = open_viewer(
        arguments.out,
        registry_of(arguments.out),
        crop=arguments.crop,
        classes=arguments.classes,
        port=arguments.port,
        say=console.line,
    )
    console.line(f"open {viewer.link}   (state: {viewer.state})")
    if not arguments.once:
        viewer.serve()
    return 0


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise EnsembleError(f"{path}: cannot write here: {error.strerror}") from error
