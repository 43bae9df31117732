"""What a report says: numbers that the build, its check and perhaps its scores already hold, put in order."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ensemble.core import classes as taxonomy
from ensemble.core.grid import Grid
from ensemble.methods.sizes import add_sizes_nm3
from ensemble.storage.volume import open_em
from ensemble.submission.check_report import GENEROUS_TRUTH_OBJECTS, NOTABLE_CHANGE, CheckReport
from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import EnsembleError, RegistryError

WRITTEN, EMPTY, LIKELY, UNCLAIMED, FAULT = "written", "empty", "likely", "unclaimed", "fault"
STATUSES = {
    WRITTEN: "holds voxels",
    EMPTY: "empty",
    LIKELY: "empty, though its probability exceeds one half somewhere",
    UNCLAIMED: "zeros on purpose: the recipe lists it as empty",
    FAULT: "the check found a fault",
}


@dataclass(frozen=True)
class FinishedBuild:
    """The files a finished build left in a folder; ``data_root`` is where its EM was."""

    out: Path
    plan: Mapping[str, Any]
    check: Mapping[str, Any]
    data_root: str
    costs: Mapping[str, Any]
    scores: Mapping[str, Any] | None

    @classmethod
    def of(cls, out: Path) -> "FinishedBuild":
        """Raises EnsembleError for a folder without a finished build."""
        out = Path(out)
        plan, check = _json(out / "plan.json", _PLAN), _json(out / "check.json")
        if plan is None or check is None or not (out / "lock.yaml").exists() or not (out / "submission.zip").exists():
            raise EnsembleError(f"{out}: holds no finished build; run ensemble build RECIPE --out {out} first")
        lock, _ = yamlfile.load_yaml(out / "lock.yaml", RegistryError)
        try:
            check = asdict(CheckReport.from_json(json.dumps(check)))
        except ValueError as error:
            raise EnsembleError(f"{out / 'check.json'}: not what a build writes; delete it, and build again") from error
        request = _json(out / "work" / "request.json") or {}
        scores = _json(out / "scores.json", _SCORES)
        data_root = request.get("data_root") or lock.get("data", "")
        return cls(out, plan, check, data_root, _json(out / "costs.json") or {}, scores)

    def dataset(self, crop: str) -> str:
        return self.plan["crops"][crop]["dataset"]

    def grid(self, crop: str) -> Grid:
        said = self.plan["crops"][crop]["grid"]
        return Grid(tuple(said["shape"]), tuple(said["voxel_size_nm"]), tuple(said["origin_nm"]))

    def em(self, dataset: str) -> Any:
        """The EM's pyramid, or None where it is not at hand."""
        try:
            return open_em(self.data_root, dataset).levels
        except EnsembleError:
            return None


_PLAN = ("recipe", "consistency", "crops", "cost")
_SCORES = ("overall_score", "overall_instance_score", "overall_semantic_score", "label_scores")


def _json(path: Path, keys: Sequence[str] = ()) -> Any:
    """The mapping in a file, None where there is none. Raises EnsembleError for one without these keys."""
    try:
        said = json.loads(path.read_text())
    except OSError:
        return None
    except ValueError as error:
        raise EnsembleError(f"{path}: damaged; build again, or delete the file") from error
    if not isinstance(said, dict) or any(key not in said for key in keys):
        raise EnsembleError(f"{path}: not what a build writes; build again, or delete the file")
    return said


def gather(build: FinishedBuild, *, likely: Mapping[str, float], tracking_uri: str) -> dict[str, Any]:
    """Everything the page shows but pictures; ``likely``: the highest probability of arrays that are empty."""
    crops = build.plan["crops"]
    cells = {f"crop{crop}": _cells(build, f"crop{crop}", said, likely) for crop, said in crops.items()}
    names = list(dict.fromkeys(name for said in crops.values() for name in said["classes"]))
    return {
        "name": build.plan["recipe"],
        "consistency": build.plan["consistency"],
        "verdict": _verdict(build, cells),
        "faults": list(build.check["faults"]),
        "warnings": list(build.check["warnings"]),
        "crops": {
            f"crop{crop}": {
                "dataset": said["dataset"],
                "shape": said["grid"]["shape"],
                "voxel_size_nm": said["grid"]["voxel_size_nm"],
            }
            for crop, said in crops.items()
        },
        "classes": {name: _class(build, name, cells, tracking_uri) for name in names},
        "cells": cells,
        "consistent": {
            **{key: build.check[key] for key in ("violations", "violations_before", "relations")},
            "decoding": _decoding(build),
        },
        "costs": _costs(build),
        "scores": build.scores,
        "score_rows": [] if build.scores is None else _score_rows(build.scores),
    }


def _cells(build: FinishedBuild, group: str, crop: Mapping[str, Any], likely: Mapping[str, float]) -> dict[str, Any]:
    size = crop["grid"]["shape"][0] * crop["grid"]["shape"][1] * crop["grid"]["shape"][2]
    found = {}
    for name, said in crop["classes"].items():
        row = build.check["arrays"].get(group, {}).get(name)
        place = f"{group}/{name}"
        faults = [text for text in build.check["faults"] if text.startswith(f"{place}:")]
        status = WRITTEN
        if row is None or faults:
            status = FAULT
        elif not row["nonzero_voxels"]:
            status = UNCLAIMED if not said["claimed"] else LIKELY if likely.get(place, 0) > 0.5 else EMPTY
        found[name] = {
            "status": status,
            "fallback": bool(said.get("fallback")),
            "highest_probability": likely.get(place),
            **(row or {}),
            "share": (row["nonzero_voxels"] / size) if row else None,
            "why": faults[0] if faults else "",
        }
    return found


def _verdict(build: FinishedBuild, cells: Mapping[str, Mapping[str, Any]]) -> str:
    """One line in words."""
    arrays = [cell for row in cells.values() for cell in row.values()]
    counted = {status: sum(cell["status"] == status for cell in arrays) for status in STATUSES}
    faults, warnings = len(build.check["faults"]), len(build.check["warnings"])
    legal = "complete and legal: ready to upload"
    if counted[LIKELY]:
        legal = f"complete and legal, but {counted[LIKELY]} look wrongly empty"
    if faults:
        legal = f"NOT ready: {faults} fault{'' if faults == 1 else 's'} to mend"
    return (
        f"{len(arrays)} arrays of {len(cells)} crops, {legal}; {counted[WRITTEN]} hold voxels,"
        f" {counted[EMPTY] + counted[LIKELY]} are empty, {counted[UNCLAIMED]} are zeros on purpose,"
        f" {warnings} warning{'' if warnings == 1 else 's'}"
    )


def _score_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each class, what its perfection would gain first."""
    rows = []
    for name, said in scores["label_scores"].items():
        key = "combined_score" if "combined_score" in said else "iou"
        by_crop = {c: classes[name] for c, classes in scores.get("crops", {}).items() if key in classes.get(name, {})}
        worst = min(((one[key], crop) for crop, one in by_crop.items() if one["tp"] + one["fn"]), default=None)
        rows.append(
            {
                "name": name,
                "score": said[key],
                "gain": said["overall_score_if_perfect"] - scores["overall_score"],
                "unit": "objects" if taxonomy.is_instance(name) else "voxels",
                **{new: said.get(old) for new, old in (("f1", "f1"), ("distance", "normalized_hausdorff_distance"))},
                **{count: said[count] for count in ("tp", "fp", "fn")},
                "worst": worst and f"{worst[1]} {worst[0]:.4f}",
            }
        )
    return sorted(rows, key=lambda row: -row["gain"])


def _class(
    build: FinishedBuild, name: str, cells: Mapping[str, Mapping[str, Any]], tracking_uri: str
) -> dict[str, Any]:
    routes = {}
    for crop, said in build.plan["crops"].items():
        if name in said["classes"]:
            one = said["classes"][name]
            told = {key: one[key] for key in ("source", "threshold", "weight", "postprocess", "words")}
            told["models"] = {s: {k: v for k, v in m.items() if k != "resampled"} for s, m in one["models"].items()}
            routes.setdefault(json.dumps(told, sort_keys=True), (told, []))[1].append(f"crop{crop}")
    models = [model for told, _ in routes.values() for model in told["models"].values()]
    mine = [row[name] for row in cells.values() if name in row]
    sizes: dict[str, int] = {}
    for crop, row in cells.items():
        voxel_nm = build.plan["crops"][crop.removeprefix("crop")]["grid"]["voxel_size_nm"]
        add_sizes_nm3(sizes, row.get(name, {}).get("sizes_log2_voxels", {}), voxel_nm)
    return {
        "instance": taxonomy.is_instance(name),
        "routes": [{**_linked(told, tracking_uri), "crops": crops} for told, crops in routes.values()],
        "nonzero_voxels": sum(cell.get("nonzero_voxels", 0) for cell in mine),
        "share": sum(cell.get("nonzero_voxels", 0) for cell in mine) / _voxels(build, name),
        "objects": sum(cell.get("objects") or 0 for cell in mine),
        "at_border": sum(cell.get("at_border") or 0 for cell in mine),
        "truth_objects": None,
        "most_objects": _most_objects(name, cells),
        "too_many": [
            crop
            for crop, row in cells.items()
            if (row.get(name, {}).get("truth_objects_needed") or 0) > GENEROUS_TRUTH_OBJECTS
        ],
        "sizes_log2_nm3": sizes,
        "training_sizes_log2_nm3": next((m["truth_sizes_log2_nm3"] for m in models if m["truth_sizes_log2_nm3"]), {}),
    }


def _most_objects(name: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The crop with the most objects of a class, and how many the truth must have there for them to count."""
    counted = [(row[name]["objects"], crop) for crop, row in cells.items() if row.get(name, {}).get("objects")]
    if not counted:
        return None
    objects, crop = max(counted)
    return {"crop": crop, "objects": objects, "truth_objects_needed": cells[crop][name]["truth_objects_needed"]}


def _voxels(build: FinishedBuild, name: str) -> int:
    """Of all crops that the class is scored in."""
    shapes = (said["grid"]["shape"] for said in build.plan["crops"].values() if name in said["classes"])
    return sum(map(math.prod, shapes))


def _linked(told: Mapping[str, Any], tracking_uri: str) -> dict[str, Any]:
    models = {}
    for source, said in told["models"].items():
        name, version = said["model"].removeprefix("models:/").rsplit("/", 1)
        page = f"{tracking_uri.rstrip('/')}/#/models/{name}/versions/{version}"
        models[source] = {**said, "link": page if tracking_uri.startswith("http") else None}
    return {**told, "models": models}


def _decoding(build: FinishedBuild) -> dict[str, Any]:
    found = {}
    for name, counts in build.check["decoding"].items():
        alone = counts["alone"] or 1
        shares = {key: counts[key] / alone for key in ("removed", "added")}
        if counts["removed"] or counts["added"]:
            notable = max(shares.values()) > NOTABLE_CHANGE
            found[name] = {
                **counts,
                "removed_share": shares["removed"],
                "added_share": shares["added"],
                "notable": notable,
            }
    return dict(sorted(found.items(), key=lambda row: -(row[1]["removed"] + row[1]["added"])))


def _costs(build: FinishedBuild) -> dict[str, Any]:
    planned = build.plan["cost"]
    return {
        "stages": build.costs.get("stages", []),
        "planned_passes": planned["forward_passes"],
        "forward_passes": build.costs.get("forward_passes"),
        "predictions_kept": build.costs.get("predictions_kept"),
        "predictions": build.costs.get("predictions"),
        "groups_kept": build.costs.get("groups_kept"),
        "groups": build.costs.get("groups"),
        "voxels": planned["voxels"],
        "planned_peak_bytes": planned["peak_memory_bytes"],
    }
