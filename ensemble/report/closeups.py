"""Places worth a look: the truth's best and worst objects, and where deciding all classes together changed most."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core.box import Slices
from ensemble.core.manifest import Target
from ensemble.decode.mixing import Probability
from ensemble.decode.tile_decoding import TILE_SHAPE
from ensemble.methods.method_table import Stage
from ensemble.plan.plan import CropPlan
from ensemble.report import object_matches as judged
from ensemble.report import pictures
from ensemble.report.facts import FAULT, FinishedBuild
from ensemble.storage.truth import open_truth
from ensemble.submission.reader import Submission

CHANGES = 8
"""Classes whose largest change is shown."""

EDGE = 128
"""Of the pictures of changes, in voxels."""


@dataclass
class Found:
    """An instance class's objects, each with its crop: the truth's, and the submission's as the server sees them."""

    true: list[tuple[str, judged.ObjectMatch]] = field(default_factory=list)
    submitted: list[tuple[str, judged.ObjectMatch]] = field(default_factory=list)


def objects(
    build: FinishedBuild, submission: Submission, truth: Path, found: Mapping[str, Found]
) -> Iterator[dict[str, Any]]:
    """By class the worst and the best of the truth's objects and the largest false one, on both sides."""
    for name, held in found.items():
        for side, choose in ((held.true, judged.chosen), (held.submitted, judged.false)):
            crops = {id(one): crop for crop, one in side}
            for kind, one in choose([one for _, one in side]):
                yield _object(build, submission, truth, crops[id(one)], name, kind, one)


def _object(
    build: FinishedBuild, submission: Submission, truth: Path, crop: str, name: str, kind: str, one: judged.ObjectMatch
) -> dict[str, Any]:
    grid, group = build.grid(crop), f"crop{crop}"
    volume = open_truth(truth, Target(crop, build.dataset(crop), grid, (name,)), name)
    read = {"truth": volume.read, "found": lambda box: submission.read(group, name, box)}
    own = "found" if kind == "false" else "truth"
    around = read[own](one.box)
    label = _most(around) if kind == "false" else one.label  # the submission's parts have other numbers than its ids
    z = one.box[0].start + int((around == label).sum(axis=(1, 2)).argmax())
    edge = min(max(64, *(s.stop - s.start + 16 for s in one.box[1:])), 256)
    across = [pictures.span((s.start + s.stop) // 2, edge, n) for s, n in zip(one.box[1:], grid.shape[1:], strict=True)]
    box = (slice(z, z + 1), *across)
    sides = {side: of(box)[0] for side, of in read.items()}
    chosen = sides[own] == label
    said = {"kind": kind, "place": f"{group}/{name}", "label": label, "voxels": one.voxels, "iou": one.iou, "z": z}
    for side, labels in sides.items():
        mark = chosen if side == own else (labels > 0) & (labels == _most(labels[chosen]))
        said[side] = pictures.marked(labels, mark)
    return said | _em(build, crop, box)


def _most(labels: np.ndarray) -> int:
    """The label but 0 that most voxels have; 0 where there is none."""
    ids, voxels = np.unique(labels[labels > 0], return_counts=True)
    return int(ids[voxels.argmax()]) if len(ids) else 0


def changes(
    build: FinishedBuild,
    said: Mapping[str, Any],
    submission: Submission,
    crops: Mapping[str, CropPlan],
    fields: Mapping[str, Mapping[tuple[str, str], Any]],
) -> Iterator[dict[str, Any]]:
    """By class, what changed most first, the place that joint decoding changed most: alone, and as written.

    ``said``: what the page says of the build. A class is left out where its probability or its array is not at hand.
    """
    places = ((name, one["most_changed"]) for name, one in said["consistent"]["decoding"].items())
    known = ((name, most) for name, most in places if most and _is_there(said, crops, name, most))
    for name, most in islice(known, CHANGES):
        crop = most["crop"].removeprefix("crop")
        yield _change(build, name, most, submission, crops[crop], fields[crop])


def _is_there(said: Mapping[str, Any], crops: Mapping[str, CropPlan], name: str, most: Mapping[str, Any]) -> bool:
    plan, cell = crops.get(most["crop"].removeprefix("crop")), said["cells"].get(most["crop"], {}).get(name)
    if plan is None or cell is None or cell["status"] == FAULT or name not in plan.claimed:
        return False
    return all(at < n for at, n in zip(most["at_voxels"], plan.target.grid.shape, strict=True))


def _change(
    build: FinishedBuild,
    name: str,
    most: Mapping[str, Any],
    submission: Submission,
    plan: CropPlan,
    fields: Mapping[tuple[str, str], Any],
) -> dict[str, Any]:
    target, tile = plan.target, most["at_voxels"]
    shape = target.grid.shape
    across = [
        pictures.span(at + size // 2, EDGE, n) for at, size, n in zip(tile[1:], TILE_SHAPE[1:], shape[1:], strict=True)
    ]
    box = target.grid.clip((slice(tile[0], tile[0] + TILE_SHAPE[0]), *across))
    threshold = plan.routes[name].threshold
    alone = Probability(plan, fields).unfilled(name, box) > threshold
    written = submission.read(target.group, name, box)
    removed, added = alone & (written == 0), ~alone & (written > 0)
    within = tuple(slice(at - s.start, at - s.start + size) for at, s, size in zip(tile, box, TILE_SHAPE, strict=True))
    z = int(np.count_nonzero((removed | added)[within], axis=(1, 2)).argmax())
    plane = (slice(box[0].start + z, box[0].start + z + 1), *box[1:])
    said = {
        "place": f"{target.group}/{name}",
        "name": name,
        "voxels": most["voxels"],
        "where": ", ".join(
            f"{axis} {at}–{min(at + size, n)}" for axis, at, size, n in zip("zyx", tile, TILE_SHAPE, shape, strict=True)
        ),
        "z": plane[0].start,
        "fills": bool(plan.routes[name].of_stage(Stage.FILL)),
        "threshold": threshold,
        "alone": pictures.outlines(alone[z].astype(np.uint8), pictures.PLAIN),
        "written": pictures.outlines(written[z], pictures.PLAIN),
        "changed": pictures.changes(removed[z], added[z]),
    }
    return said | _em(build, target.crop, plane)


def _em(build: FinishedBuild, crop: str, plane: Slices) -> dict[str, str]:
    """The EM under a plane along z, where it is at hand."""
    levels = build.em(build.dataset(crop))
    values = None if levels is None else pictures.em_window(levels, build.grid(crop), plane)
    return {} if values is None else {"em": pictures.grey(values[0])}
