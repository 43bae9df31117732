"""The report of a finished build: ``report.html``, one file that opens from disk, and its facts as JSON beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Target, is_instance
from ensemble.methods import count_sizes_nm3
from ensemble.report.build_probabilities import BuildProbabilities
from ensemble.report.charts import size_chart, threshold_chart
from ensemble.report.closeups import ClassObjects, change_closeups, object_closeups
from ensemble.report.facts import ReportFacts, gather_facts
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.gallery import Gallery, find_peaks
from ensemble.report.object_matches import THRESHOLDS, counts_along_thresholds, match_objects
from ensemble.report.page import PagePictures, render_page
from ensemble.scoring import Scores, score, split_objects
from ensemble.storage import whole_truth
from ensemble.submission import Submission
from ensemble.support import (
    Costs,
    EnsembleError,
    Progress,
    QuietProgress,
    RegistryError,
    VolumeError,
    read_json,
    read_sealed,
    without_credentials,
    write_json,
    write_text,
)
from registry import Registry

REPORT_PAGE, REPORT_FACTS, REPORT_SCORES = "report.html", "report.json", "scores.json"


def make_report(
    out: Path, store: Registry, *, truth: Path | None = None, progress: Progress | None = None
) -> Scores | None:
    """Make the report of a build anew, also in the build's MLflow run; with ``truth`` it is scored too: the scores.

    Where the recipe's models or data are no longer at hand, or damaged, the page has no probabilities, and says so.
    """
    costs = Costs(progress or QuietProgress())
    build = FinishedBuild.of(out)
    try:
        probabilities = BuildProbabilities.open(build, store, costs)
    except EnsembleError as error:
        probabilities = BuildProbabilities()
        costs.say(f"without probabilities: {error}")
    scores = None
    if truth is not None:
        scores = score(out / "submission.zip", truth, build.targets, progress=costs)

    def write(probabilities: BuildProbabilities) -> Path:
        return write_report(
            out,
            probabilities=probabilities,
            registry_address=store.address,
            scores=scores,
            truth=truth,
            progress=costs,
        )

    try:
        page = write(probabilities)
    except VolumeError as error:
        if not probabilities.plans:
            raise
        costs.say(f"without probabilities: {error}")
        page = write(BuildProbabilities())
    _add_costs(out, costs)
    state = read_sealed(out / "work" / "state.json")
    run_id = state.get("run_id") if isinstance(state, dict) else None
    if isinstance(run_id, str):
        try:
            store.runs.add(run_id, {} if scores is None else scores.flat(), [page])
        except RegistryError as error:
            costs.say(f"not added to the build's MLflow run: {error}")
    return scores


def write_report(
    out: Path,
    *,
    probabilities: BuildProbabilities,
    registry_address: str,
    scores: Scores | None = None,
    truth: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of the build in ``out``; returns the page.

    Without ``probabilities`` the page shows none. ``truth`` adds its objects' sizes. Raises EnsembleError for a
    folder without a build.
    """
    progress = progress or QuietProgress()
    if scores is not None:
        write_text(out / REPORT_SCORES, scores.to_json() + "\n")
    build = FinishedBuild.of(out)
    peaks = find_peaks(build, probabilities)
    likely = {place: round(peak.probability, 3) for place, peak in peaks.items()}
    without = _without(build, probabilities)
    facts = gather_facts(build, likely=likely, registry_address=registry_address, without=without)
    with Submission.open(out / "submission.zip") as submission:
        views = Gallery(build, submission, probabilities, peaks).views(facts.cells, progress)
        objects = {} if truth is None else _objects_of(build, submission, truth)
        facts = facts.with_truth_objects({name: len(sides.true) for name, sides in objects.items()})
        pictures = PagePictures(
            views=views,
            charts=_size_charts(build, facts, objects),
            curves={} if truth is None else _curves(probabilities, truth),
            objects=[] if truth is None else list(object_closeups(build, submission, truth, objects)),
            changes=list(change_closeups(build, facts, submission, probabilities)),
        )
    write_text(out / REPORT_FACTS, json.dumps(facts.as_plain(), indent=1) + "\n")
    write_text(out / REPORT_PAGE, render_page(facts, pictures))
    return out / REPORT_PAGE


def _add_costs(out: Path, costs: Costs) -> None:
    """What making the report took takes the place of what it took before, among the build's costs."""
    spent = read_json(out / "costs.json")
    if isinstance(spent, dict) and isinstance(spent.get("stages"), list):
        stages = [asdict(stage) for stage in costs.stages()]
        names = {stage["stage"] for stage in stages}
        before = [stage for stage in spent["stages"] if stage.get("stage") not in names]
        write_json(out / "costs.json", {**spent, "stages": before + stages})


def _without(build: FinishedBuild, probabilities: BuildProbabilities) -> list[str]:
    """What the page cannot show, and why, a line each."""
    datasets = dict.fromkeys(crop.dataset for crop in build.plan.crops.values())
    lacking = [dataset for dataset in datasets if build.em(dataset) is None]
    lines = (
        [f"Without EM of {', '.join(lacking)}: it is not under {without_credentials(build.data_root)}."]
        if lacking
        else []
    )
    if not probabilities.plans:
        lines.append("Without probabilities: recipe, models or predictions are not those of the build; build again.")
    return lines


def _objects_of(build: FinishedBuild, submission: Submission, truth: Path) -> dict[str, ClassObjects]:
    """By instance class with truth its objects on both sides, and how well each is answered."""
    by_class: dict[str, ClassObjects] = {}
    for target in build.targets:
        for name in filter(is_instance, target.classes):
            true_and_mask = whole_truth(truth, _of_class(target, name), name)
            if true_and_mask is None:
                continue
            true, mask = true_and_mask
            labels = submission.read(target.group, name, target.grid.box)
            if mask is not None:
                labels = np.where(mask, labels, np.zeros((), labels.dtype))
            parts, _ = split_objects(labels)  # as the server sees them
            of_truth, of_submission = match_objects(true, parts, target.crop)
            sides = by_class.setdefault(name, ClassObjects())
            sides.true += of_truth
            sides.submitted += of_submission
    return by_class


def _of_class(target: Target, name: str) -> Target:
    return Target(target.crop, target.dataset, target.grid, (name,))


def _size_charts(build: FinishedBuild, facts: ReportFacts, objects: Mapping[str, ClassObjects]) -> dict[str, str]:
    """By class with objects their sizes, beside the truth's and those a model learned from."""
    return {
        name: size_chart(row.sizes_log2_nm3, _true_sizes(build, objects.get(name)), row.training_sizes_log2_nm3)
        for name, row in facts.classes.items()
        if row.sizes_log2_nm3
    }


def _true_sizes(build: FinishedBuild, sides: ClassObjects | None) -> dict[str, int]:
    """The truth's objects by the power of two of their nm3."""
    total: dict[str, int] = {}
    true = [] if sides is None else sides.true
    for crop in dict.fromkeys(match.crop for match in true):
        voxels = np.array([match.voxels for match in true if match.crop == crop])
        count_sizes_nm3(total, voxels, build.grid(crop).voxel_size_nm)
    return total


def _curves(probabilities: BuildProbabilities, truth: Path) -> dict[str, str]:
    """By semantic class with truth its IoU along the threshold, drawn."""
    total: dict[str, NDArray[Any]] = {}
    current: dict[str, set[float]] = {}
    for crop, plan in probabilities.plans.items():
        for name in plan.claimed:
            true_and_mask = None if is_instance(name) else whole_truth(truth, plan.target, name)
            of_class = probabilities.of(crop, name)
            if true_and_mask is not None and of_class is not None:
                counts = counts_along_thresholds(of_class.probability, name, *true_and_mask)
                total[name] = total.get(name, np.zeros_like(counts)) + counts
                current.setdefault(name, set()).add(of_class.route.threshold)
    curves = {}
    for name, counts in total.items():
        scores = [tp / max(1, tp + fp + fn) for tp, fp, fn in counts.tolist()]
        curves[name] = threshold_chart(THRESHOLDS, scores, sorted(current[name]))
    return curves
