"""The report of a finished build: ``report.html``, one file that opens from disk, and its facts as JSON beside it."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ensemble import resources, taxonomy
from ensemble.errors import EnsembleError, RegistryError
from ensemble.manifest import Target
from ensemble.mixing import Probability
from ensemble.plan import CropPlan
from ensemble.predict import Predicting
from ensemble.prepare import Request, prepare
from ensemble.progress import Progress, Quiet
from ensemble.reporting import charts, closeups, facts, page, pictures
from ensemble.reporting import judged as judging
from ensemble.score import score
from ensemble.scored_arrays import whole_truth
from ensemble.scoring.objects import split_objects
from ensemble.scoring.scores import Scores
from ensemble.sizes import add_nm3, histogram
from ensemble.submission import Submission
from ensemble.workspace import read_json, write_text
from registry.store import Store

PAGE, FACTS, SCORES = "report.html", "report.json", "scores.json"


def report(
    out: Path,
    *,
    crops: Mapping[str, CropPlan],
    fields: Mapping[str, Mapping[tuple[str, str], Any]],
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
    progress = progress or Quiet()
    if scores is not None:
        write_text(out / SCORES, scores.to_json() + "\n")
    build = facts.Build.of(out)
    with Submission.open(out / "submission.zip") as submission:
        likely = _likely(build, crops, fields)
        said = facts.gather(build, likely=likely, tracking_uri=tracking_uri)
        if scores is not None:
            said["worst"] = _worst(scores)
        said["without"] = _without(build, crops)
        shown = _pictures(build, said, submission, crops, fields, progress)
        true = {} if truth is None else _objects_of(build, submission, truth)
        judged = [] if truth is None else list(closeups.objects(build, submission, truth, true))
        changed = list(closeups.changes(build, said["consistent"]["decoding"], submission, crops, fields))
    curves = {} if truth is None else _curves(crops, fields, truth)
    drawn = {
        name: charts.sizes(one["sizes_log2_nm3"], _sizes(build, true.get(name, [])), one["training_sizes_log2_nm3"])
        for name, one in said["classes"].items()
        if one["sizes_log2_nm3"]
    }
    write_text(out / FACTS, json.dumps(said, indent=1) + "\n")
    write_text(out / PAGE, page.render(said, shown, drawn, curves, judged, changed))
    return out / PAGE


def again(out: Path, store: Store, *, truth: Path | None = None, progress: Progress | None = None) -> Scores | None:
    """Make the report of a build anew, also in the build's MLflow run; with ``truth`` it is scored too: the scores.

    Where the recipe's models or data are no longer at hand, the page has no probabilities, and says so.
    """
    progress = progress or Quiet()
    build = facts.Build.of(out)
    crops: dict[str, CropPlan] = {}
    fields: dict[str, Mapping[tuple[str, str], Any]] = {}
    try:
        request = Request.again(out)
        prepared = prepare(request, store)
        predicting = Predicting(request, prepared, store, progress)
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
    made = report(
        out,
        crops=crops,
        fields=fields,
        tracking_uri=store.tracking_uri,
        scores=scores,
        truth=truth,
        progress=progress,
    )
    run_id = (read_json(out / "work" / "state.json") or {}).get("run_id")
    if run_id:
        try:
            store.add_to_run(run_id, {} if scores is None else scores.flat(), [made])
        except RegistryError as error:
            progress.say(f"not added to the build's MLflow run: {error}")
    return scores


def _likely(
    build: facts.Build, crops: Mapping[str, CropPlan], fields: Mapping[str, Mapping[tuple[str, str], Any]]
) -> dict[str, float]:
    """The highest probability of each array that is empty."""
    found = {}
    for place in build.check["empty"]:
        group, name = place.split("/")
        crop = group.removeprefix("crop")
        if crop in crops and name in crops[crop].claimed:
            whole = tuple(slice(0, n) for n in crops[crop].target.grid.shape)
            found[place] = Probability(crops[crop], fields[crop]).bounds(name, whole)[1]
    return found


def _without(build: facts.Build, crops: Mapping[str, CropPlan]) -> list[str]:
    """What the page cannot show, and why, a line each."""
    datasets = dict.fromkeys(crop["dataset"] for crop in build.plan["crops"].values())
    lacking = [dataset for dataset in datasets if build.em(dataset) is None]
    said = [f"Without EM of {', '.join(lacking)}: it is not under {build.data_root}."] if lacking else []
    if not crops:
        said.append("Without probabilities: the recipe's models or predictions are no longer at hand; build again.")
    return said


def _pictures(
    build: facts.Build,
    said: Mapping[str, Any],
    submission: Submission,
    crops: Mapping[str, CropPlan],
    fields: Mapping[str, Mapping[tuple[str, str], Any]],
    progress: Progress,
) -> dict[str, list[pictures.View]]:
    places = [
        (group, name)
        for group, row in said["cells"].items()
        for name, cell in row.items()
        if cell["status"] == facts.WRITTEN
    ]
    edge = pictures.edge_for(len(places))
    em: dict[str, Any] = {}
    for group in dict.fromkeys(group for group, _ in places):
        em[group] = build.em(said["crops"][group]["dataset"])

    def one(place: tuple[str, str]) -> list[pictures.View]:
        group, name = place
        crop = group.removeprefix("crop")
        array = submission.array(group, name)
        box = pictures.window(array, edge)
        if box is None:
            return []
        plan = crops.get(crop)
        grey = None if em[group] is None else pictures.em_window(em[group], build.grid(crop), box)
        known = plan if plan is not None and name in plan.claimed else None
        return pictures.views(array.read(box), box, grey, known, name, fields.get(crop, {}))

    progress.stage("report", max(len(places), 1))
    found = {}
    with ThreadPoolExecutor(resources.cores(), "pictures") as pool:
        for done, (place, views) in enumerate(zip(places, pool.map(one, places), strict=True), start=1):
            if views:
                found["/".join(place)] = views
            progress.at(done, "/".join(place))
    return found


def _worst(scores: Scores) -> dict[str, str]:
    """By class the crop where it scores least."""
    found: dict[str, tuple[float, str]] = {}
    for crop, arrays in scores.arrays.items():
        for name, array in arrays.items():
            if array.tally.tp + array.tally.fn:
                value = scores.of(name, array.tally)[scores.key(name)]
                found[name] = min(found.get(name, (value, crop)), (value, crop))
    return {name: f"{crop} {value:.4f}" for name, (value, crop) in found.items()}


def _objects_of(build: facts.Build, submission: Submission, truth: Path) -> closeups.Found:
    """Every true object of the instance classes, and how well it is found."""
    by_class: dict[str, list[tuple[str, judging.Judged]]] = {}
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
            by_class.setdefault(name, []).extend((crop, one) for one in judging.objects(true, parts))
    return by_class


def _sizes(build: facts.Build, held: list[tuple[str, judging.Judged]]) -> dict[str, int]:
    """Objects by the power of two of their nm3."""
    total: dict[str, int] = {}
    for crop in dict.fromkeys(crop for crop, _ in held):
        voxels = np.array([one.voxels for where, one in held if where == crop])
        add_nm3(total, histogram(voxels), build.grid(crop).voxel_size_nm)
    return total


def _curves(
    crops: Mapping[str, CropPlan], fields: Mapping[str, Mapping[tuple[str, str], Any]], truth: Path
) -> dict[str, str]:
    """By semantic class with truth its IoU along the threshold, drawn."""
    total: dict[str, Any] = {}
    current: dict[str, set[float]] = {}
    for crop, plan in crops.items():
        for name in plan.claimed:
            known = None if taxonomy.is_instance(name) else whole_truth(truth, plan.target, name)
            if known is not None:
                found = judging.threshold_counts(Probability(plan, fields[crop]), name, *known)
                total[name] = total.get(name, 0) + found
                current.setdefault(name, set()).add(plan.routes[name].threshold)
    drawn = {}
    for name, found in total.items():
        scores = [tp / max(1, tp + fp + fn) for tp, fp, fn in found.tolist()]
        drawn[name] = charts.along_threshold(judging.THRESHOLDS, scores, sorted(current[name]))
    return drawn
