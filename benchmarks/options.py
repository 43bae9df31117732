"""The guide's options 1, 2, 3 and joint decoding, side by side: what each is worth for mitochondria and overall.

``python -m benchmarks.options`` compares them on the demo's data and models, after ``make demo``.
"""

import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ensemble.build import build
from ensemble.cli import bars, console
from ensemble.core import load_manifest
from ensemble.plan import Request, find_recipe, registry_in
from ensemble.report import make_report
from ensemble.scoring import score
from ensemble.storage import open_volume
from ensemble.submission import Submission
from ensemble.support import RecipeError, dump_yaml, load_yaml
from registry import Registry


@dataclass(frozen=True)
class Case:
    """Data with truth, a recipe (as plain values) for it, and the guide's parameters for its mitochondria."""

    recipe: dict[str, Any]
    manifest: Path
    truth: Path
    data_root: Path
    out: Path
    min_distance_nm: float
    min_size_nm3: float

    def options(self) -> dict[str, tuple[str, list[Any]]]:
        """Consistency and mito's post-processing of each option."""
        drop = {"drop_small": {"min_size_nm3": self.min_size_nm3}}
        return {
            "option 1: masks": ("none", []),
            "option 2: components": ("none", ["components", drop]),
            "option 3: watershed": ("none", [{"watershed": {"min_distance_nm": self.min_distance_nm}}, drop]),
            "joint, components": ("joint", ["components", drop]),
        }


def compare(case: Case, registry: Registry) -> None:
    """Build and score every option; print IoU per class, mito objects matched at IoU >= 0.5, official scores."""
    rows = {option: _measure(case, option, registry) for option in case.options()}
    columns = next(iter(rows.values()))
    table = Table("", *rows, title="options, side by side")
    for name in columns:
        table.add_row(name, *(row.get(name, "") for row in rows.values()))
    console.show([table])


def _measure(case: Case, option: str, registry: Registry) -> dict[str, str]:
    folder = case.out / option.split(":")[0].split(",")[0].replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(_recipe(case, option))
    request = Request(recipe, folder, manifest=case.manifest, data_root=str(case.data_root))
    with bars.progress() as progress:
        build(request, registry, progress)
        make_report(folder, registry, progress=progress)  # as the command does
        scores = score(request.zip, case.truth, load_manifest(case.manifest), progress=progress)
    ious, objects = _against_truth(case, request.zip)
    official = {"mito score": scores.by_class["mito"], "overall score": scores.overall.score}
    return {**ious, "mito objects matched": objects, **{key: f"{value:.3f}" for key, value in official.items()}}


def _recipe(case: Case, option: str) -> str:
    consistency, chain = case.options()[option]
    recipe = copy.deepcopy(case.recipe)
    recipe["classes"].setdefault("mito", {})["postprocess"] = chain
    return dump_yaml({"name": "option", **recipe, "consistency": consistency})


def _against_truth(case: Case, zip_path: Path) -> tuple[dict[str, str], str]:
    """IoU by claimed class, pooled over crops, and mito objects matched of those there are."""
    inter, union = Counter[str](), Counter[str]()
    matched = objects = 0
    with Submission.open(zip_path) as submission:
        unclaimed = submission.attributes.get("unclaimed", {})
        for target in load_manifest(case.manifest):
            for name in set(target.classes) - set(unclaimed.get(target.group, ())):
                truth = open_volume(case.truth / target.group / name).read(target.grid.box)
                submitted = submission.read(target.group, name, target.grid.box)
                inter[name] += int(((truth > 0) & (submitted > 0)).sum())
                union[name] += int(((truth > 0) | (submitted > 0)).sum())
                if name == "mito":
                    hits, there = _matched(truth, submitted)
                    matched, objects = matched + hits, objects + there
    ious = {f"{name} IoU": f"{inter[name] / max(union[name], 1):.3f}" for name in sorted(union)}
    return ious, f"{matched} of {objects}"


def _matched(truth: NDArray[Any], submitted: NDArray[Any]) -> tuple[int, int]:
    """Truth objects with a predicted object at IoU >= 0.5, and truth objects there are."""
    parts = cc3d.connected_components(submitted, connectivity=26)
    pairs, overlaps = np.unique(np.stack([truth.ravel(), parts.ravel()]).astype(np.int64), axis=1, return_counts=True)
    sizes_t, sizes_p = np.bincount(truth.ravel()), np.bincount(parts.ravel())
    hits = {
        int(t)
        for (t, p), n in zip(pairs.T, overlaps, strict=True)
        if t and p and n / (sizes_t[t] + sizes_p[p] - n) >= 0.5
    }
    return len(hits), int((sizes_t[1:] > 0).sum())


def main() -> None:
    demo = Path("build/demo")
    recipe, _ = load_yaml(find_recipe("recipes/demo.yaml"), RecipeError)
    kept = {key: recipe[key] for key in ("sources", "defaults", "classes", "empty")}
    case = Case(kept, demo / "manifest.csv", demo / "truth.zarr", demo / "data", Path("build/options"), 60, 100_000)
    compare(case, registry_in(demo))


if __name__ == "__main__":
    main()
