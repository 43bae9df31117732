"""The report of a finished build: ``report.html``, one file that opens from disk, and its facts as JSON beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core import classes as taxonomy
from ensemble.core.manifest import Target
from ensemble.decode.mixing import Probability
from ensemble.methods.sizes import count_sizes_nm3
from ensemble.plan import describe
from ensemble.plan.plan import CropPlan
from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.report import charts, closeups, facts, gallery, page
from ensemble.report import object_matches as judging
from ensemble.scoring.evaluation import score
from ensemble.scoring.objects import split_objects
from ensemble.scoring.scores import Scores
from ensemble.storage.truth import whole_truth
from ensemble.submission.reader import Submission
from ensemble.support.errors import EnsembleError, RegistryError
from ensemble.support.files import read_json, write_json, write_text
from ensemble.support.progress import Costs, Progress, QuietProgress
from registry.store import Store

PAGE, FACTS, SCORES = "report.html", "report.json", "scores.json"


def write_report(
    out: Path,
    *,
    crops: Mapping[str, CropPlan],
    fields: gallery.Fields,
    tracking_uri: str,
    scores: Scores | None = None,
    truth: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of the build in ``out``; returns the page.

    ``crops`` and ``fields`` are its plans and probabilities by crop ("557"), empty where they cannot be had: then
    the page shows no probabilities. ``truth`` adds its objects' sizes. Raises EnsembleError for a folder without
    a build.
    """
    progress = progress or QuietProgress()
    if scores is not None:
        write_text(out / SCORES, scores.to_json() + "\n")
    build = facts.FinishedBuild.of(out)
    with Submission.open(out / "submission.zip") as submission:
        peaks = gallery.peaks(build, crops, fields)
        likely = {place: round(peak.probability, 3) for place, peak in peaks.items()}
        said = facts.gather(build, likely=likely, tracking_uri=tracking_uri)
        said["without"] = _without(build, crops)
        shown = gallery.Gallery(build, submission, crops, fields, peaks).views(said["cells"], progress)
        true = {} if truth is None else _objects_of(build, submission, truth)
        for name, held in true.items():
            said["classes"][name]["truth_objects"] = len(held.true)
        judged = [] if truth is None else list(closeups.objects(build, submission, truth, true))
        changed = list(closeups.changes(build, said, submission, crops, fields))
    curves = {} if truth is None else _curves(crops, fields, truth)
    drawn = {
        name: charts.sizes(one["sizes_log2_nm3"], _sizes(build, true.get(name)), one["training_sizes_log2_nm3"])
        for name, one in said["classes"].items()
        if one["sizes_log2_nm3"]
    }
    write_text(out / FACTS, json.dumps(said, indent=1) + "\n")
    write_text(out / PAGE, page.render(said, shown, drawn, curves, judged, changed))
    return out / PAGE


def make_report(
    out: Path, store: Store, *, truth: Path | None = None, progress: Progress | None = None
) -> Scores | None:
    """Make the report of a build anew, also in the build's MLflow run; with ``truth`` it is scored too: the scores.

    Where the recipe's models or data are no longer at hand, the page has no probabilities, and says so.
    """
    costs = Costs(progress or QuietProgress())
    progress = costs
    build = facts.FinishedBuild.of(out)
    crops: dict[str, CropPlan] = {}
    fields: dict[str, Mapping[tuple[str, str], Any]] = {}
    try:
        request = Request.again(out)
        prepared = prepare(request, store)
        _refuse_other(build, describe.describe_plan(prepared.plan, request.budget))
        predicting = Predictor(request, prepared, store, progress)
        crops = {crop.target.crop: crop for crop in prepared.plan.crops}
        fields = {name: predicting.fields(crop) for name, crop in crops.items()}
    except EnsembleError as error:
        crops, fields = {}, {}
        progress.say(f"without probabilities: {error}")
    scores = None
    if truth is not None:
        targets = [
            Target(crop, said["dataset"], build.grid(crop), tuple(said["classes"]))
            for crop, said in build.plan["crops"].items()
        ]
        scores = score(out / "submission.zip", truth, targets, progress=progress)
    made = write_report(
        out,
        crops=crops,
        fields=fields,
        tracking_uri=store.tracking_uri,
        scores=scores,
        truth=truth,
        progress=progress,
    )
    costs_file = out / "costs.json"
    spent = read_json(costs_file)
    if isinstance(spent, dict) and isinstance(spent.get("stages"), list):
        made_anew = costs.stages()
        names = {stage["stage"] for stage in made_anew}
        kept = [stage for stage in spent["stages"] if stage.get("stage") not in names]
        write_json(costs_file, {**spent, "stages": kept + made_anew})
    state = read_json(out / "work" / "state.json")
    run_id = state.get("run_id") if isinstance(state, dict) else None
    if isinstance(run_id, str):
        try:
            store.add_to_run(run_id, {} if scores is None else scores.flat(), [made])
        except RegistryError as error:
            progress.say(f"not added to the build's MLflow run: {error}")
    return scores


def _refuse_other(build: facts.FinishedBuild, now: Mapping[str, Any]) -> None:
    """Raises EnsembleError where the recipe or the manifest says something else than when the build was made."""
    asked = json.loads(json.dumps(now))["crops"]
    for crop, said in build.plan["crops"].items():
        for key in ("dataset", "grid", "classes"):
            if asked.get(crop, {}).get(key) != said[key]:
                raise EnsembleError(f"recipe or manifest have changed since the build (crop {crop}); build again")


def _without(build: facts.FinishedBuild, crops: Mapping[str, CropPlan]) -> list[str]:
    """What the page cannot show, and why, a line each."""
    datasets = dict.fromkeys(crop["dataset"] for crop in build.plan["crops"].values())
    lacking = [dataset for dataset in datasets if build.em(dataset) is None]
    said = [f"Without EM of {', '.join(lacking)}: it is not under {build.data_root}."] if lacking else []
    if not crops:
        said.append("Without probabilities: recipe, models or predictions are not those of the build; build again.")
    return said


def _objects_of(build: facts.FinishedBuild, submission: Submission, truth: Path) -> dict[str, closeups.Found]:
    """By instance class with truth its objects on both sides, and how well each is answered."""
    by_class: dict[str, closeups.Found] = {}
    for crop, said in build.plan["crops"].items():
        for name in filter(taxonomy.is_instance, said["classes"]):
            known = whole_truth(truth, Target(crop, said["dataset"], build.grid(crop), (name,)), name)
            if known is None:
                continue
            true, mask = known
            found = submission.read(f"crop{crop}", name, tuple(slice(0, n) for n in true.shape))
            if mask is not None:
                found = np.where(mask, found, np.zeros((), found.dtype))
            parts, _ = split_objects(found)  # as the server sees them
            held = by_class.setdefault(name, closeups.Found())
            sides = judging.match_objects(true, parts)
            held.true += [(crop, one) for one in sides[0]]
            held.submitted += [(crop, one) for one in sides[1]]
    return by_class


def _sizes(build: facts.FinishedBuild, held: closeups.Found | None) -> dict[str, int]:
    """The truth's objects by the power of two of their nm3."""
    total: dict[str, int] = {}
    true = [] if held is None else held.true
    for crop in dict.fromkeys(crop for crop, _ in true):
        voxels = np.array([one.voxels for where, one in true if where == crop])
        count_sizes_nm3(total, voxels, build.grid(crop).voxel_size_nm)
    return total


def _curves(crops: Mapping[str, CropPlan], fields: gallery.Fields, truth: Path) -> dict[str, str]:
    """By semantic class with truth its IoU along the threshold, drawn."""
    total: dict[str, Any] = {}
    current: dict[str, set[float]] = {}
    for crop, plan in crops.items():
        for name in plan.claimed:
            known = None if taxonomy.is_instance(name) else whole_truth(truth, plan.target, name)
            if known is not None:
                found = judging.counts_along_thresholds(Probability(plan, fields[crop]), name, *known)
                total[name] = total.get(name, 0) + found
                current.setdefault(name, set()).add(plan.routes[name].threshold)
    drawn = {}
    for name, found in total.items():
        scores = [tp / max(1, tp + fp + fn) for tp, fp, fn in found.tolist()]
        drawn[name] = charts.along_threshold(judging.THRESHOLDS, scores, sorted(current[name]))
    return drawn
