"""The commands about a submission that is there: check, score, report, diff, view."""

import argparse
import errno
from pathlib import Path

from ensemble.cli.options import add_resources, budget_of, command, names
from ensemble.support.errors import EXIT_FAULTS_FOUND, EnsembleError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What tells that the disk is full."""


def add(commands) -> None:
    """Add them all."""
    for add_one in (_add_check, _add_score, _add_report, _add_diff, _add_view):
        add_one(commands)


def _add_check(commands) -> None:
    parser = command(commands, "check", _check, "Check a submission's format, completeness and consistency.")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.zip")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="default: the challenge's own")
    parser.add_argument("--json", action="store_true", help="for machines")


def _check(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.core.manifest import load_manifest
    from ensemble.submission.checking import check

    with terminal.progress(show=not arguments.json) as progress:
        progress.stage("check", 1)
        report = check(
            arguments.submission,
            load_manifest(arguments.manifest),
            lambda done, total: progress.at(done / max(total, 1)),
        )
    if arguments.json:
        print(report.to_json())
    else:
        terminal.report(report)
    return EXIT_FAULTS_FOUND if report.faults else 0


def _add_score(commands) -> None:
    parser = command(commands, "score", _score, "Score a submission against truth, as the challenge does.")
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
    add_resources(parser)


def _score(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.cli.score_tables import report
    from ensemble.core.manifest import load_manifest
    from ensemble.scoring.evaluation import LATEST_RULES, ScoringLimits, score
    from registry.store import Store

    limits = budget_of(arguments)
    lent = ScoringLimits(limits.workers, limits.memory_bytes)
    targets, rules = load_manifest(arguments.manifest), arguments.rules or LATEST_RULES
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
        Store().add_to_run(arguments.run_id, scores.flat())
    return 0


def _add_report(commands) -> None:
    parser = command(commands, "report", _report, "Make a build's report.html anew, with scores where truth is given.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--truth", type=Path, metavar="TRUTH.zarr", help="an array per crop and class")


def _report(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.report import report
    from registry.store import Store

    with terminal.progress() as progress:
        report.make_report(arguments.out, Store(), truth=arguments.truth, progress=progress)
    terminal.line(f"report: {arguments.out / report.PAGE}   facts: {arguments.out / report.FACTS}")
    return 0


def _add_diff(commands) -> None:
    parser = command(commands, "diff", _diff, "Show what changed between two submissions.")
    parser.add_argument("a", type=Path, metavar="A", help="a build's folder, or a zip")
    parser.add_argument("b", type=Path, metavar="B", help="a build's folder, or a zip")
    parser.add_argument("--page", type=Path, metavar="FILE.html", help="also as a page with pictures")


def _diff(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.report.difference import diff

    with terminal.progress() as progress:
        found = diff(arguments.a, arguments.b, page=arguments.page, progress=progress)
    terminal.difference(found)
    if arguments.page:
        terminal.line(f"page: {arguments.page}")
    return 0


def _add_view(commands) -> None:
    parser = command(commands, "view", _view, "Open EM, probabilities and labels of a build in neuroglancer.")
    parser.add_argument("out", type=Path, metavar="DIR", help="the --out of a build")
    parser.add_argument("--crop", metavar="N", help="default: the first")
    parser.add_argument("--classes", type=names, metavar="A,B", help="default: all that hold voxels")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--once", action="store_true", help="write link and state, and do not stay to serve")


def _view(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.report.viewer import open_viewer
    from registry.store import Store

    viewer = open_viewer(
        arguments.out, Store(), crop=arguments.crop, classes=arguments.classes, port=arguments.port, say=terminal.line
    )
    terminal.line(f"open {viewer.link}   (state: {viewer.state})")
    if not arguments.once:
        viewer.serve()
    return 0


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in FULL:
            raise
        raise EnsembleError(f"{path}: cannot write here: {error.strerror}") from error
