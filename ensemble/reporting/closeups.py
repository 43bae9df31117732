"""Places worth a look: the truth's best and worst objects, and where deciding all classes together changed most."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.deciding import TILE
from ensemble.grid import Slices
from ensemble.manifest import Target
from ensemble.mixing import Probability
from ensemble.plan import CropPlan
from ensemble.reporting import judged, pictures
from ensemble.reporting.facts import Build
from ensemble.scored_arrays import open_truth
from ensemble.submission import Submission

CHANGES = 8
"""Classes whose largest change is shown."""

EDGE = 128
"""Of the pictures of changes, in voxels."""

Found = Mapping[str, list[tuple[str, judged.Judged]]]
"""By instance class the truth's objects, each with its crop."""


def objects(build: Build, submission: Submission, truth: Path, found: Found) -> Iterator[dict[str, Any]]:
    """The worst and the best of the truth's objects by class, with pictures of both sides."""
    for name, held in found.items():
        crops = {id(one): crop for crop, one in held}
        ranked = sorted((one for _, one in held), key=lambda one: (one.iou, -one.voxels))
        for kind, one in judged.chosen(ranked):
            yield _object(build, submission, truth, crops[id(one)], name, kind, one)


def _object(
    build: Build, submission: Submission, truth: Path, crop: str, name: str, kind: str, one: judged.Judged
) -> dict[str, Any]:
    grid = build.grid(crop)
    z = (one.box[0].start + one.box[0].stop) // 2
    half = [max(32, (s.stop - s.start) // 2 + 8) for s in one.box[1:]]
    centre = [(s.start + s.stop) // 2 for s in one.box[1:]]
    edge = min(max(half), 128)
    box = grid.clip((slice(z, z + 1), *(slice(max(0, c - edge), c + edge) for c in centre)))
    volume = open_truth(truth, Target(crop, build.dataset(crop), grid, (name,)), name)
    said = {
        "kind": kind,
        "place": f"crop{crop}/{name}",
        "id": one.truth_id,
        "voxels": one.voxels,
        "iou": one.iou,
        "truth": pictures.outlines(volume.read(box)[0]),
        "found": pictures.outlines(submission.read(f"crop{crop}", name, box)[0]),
    }
    return said | _em(build, crop, box)


def changes(
    build: Build,
    decoding: Mapping[str, Mapping[str, Any]],
    submission: Submission,
    crops: Mapping[str, CropPlan],
    fields: Mapping[str, Mapping[tuple[str, str], Any]],
) -> Iterator[dict[str, Any]]:
    """By class, in the order of ``decoding``, the place it changed most: alone, and as written."""
    shown = ((name, said["most_changed"]) for name, said in decoding.items() if said["most_changed"])
    known = ((name, most) for name, most in shown if most["crop"].removeprefix("crop") in crops)
    for name, most in islice(known, CHANGES):
        crop = most["crop"].removeprefix("crop")
        yield _change(build, name, most, submission, crops[crop], fields[crop])


def _change(
    build: Build,
    name: str,
    most: Mapping[str, Any],
    submission: Submission,
    plan: CropPlan,
    fields: Mapping[tuple[str, str], Any],
) -> dict[str, Any]:
    target, tile = plan.target, most["at_voxels"]
    shape = target.grid.shape
    across = [pictures.span(at + size // 2, EDGE, n) for at, size, n in zip(tile[1:], TILE[1:], shape[1:], strict=True)]
    box = target.grid.clip((slice(tile[0], tile[0] + TILE[0]), *across))
    threshold = plan.routes[name].threshold
    alone = Probability(plan, fields).unfilled(name, box) > threshold
    written = submission.read(target.group, name, box)
    removed, added = alone & (written == 0), ~alone & (written > 0)
    within = tuple(slice(at - s.start, at - s.start + size) for at, s, size in zip(tile, box, TILE, strict=True))
    z = int(np.count_nonzero((removed | added)[within], axis=(1, 2)).argmax())
    plane = (slice(box[0].start + z, box[0].start + z + 1), *box[1:])
    said = {
        "place": f"{target.group}/{name}",
        "name": name,
        "voxels": most["voxels"],
        "at_voxels": [plane[0].start, *(s.start + (s.stop - s.start) // 2 for s in plane[1:])],
        "within_voxels": [min(size, n - at) for size, n, at in zip(TILE, shape, tile, strict=True)],
        "threshold": threshold,
        "alone": pictures.outlines(alone[z].astype(np.uint8), pictures.PLAIN),
        "written": pictures.outlines(written[z], pictures.PLAIN),
        "changed": pictures.changes(removed[z], added[z]),
    }
    return said | _em(build, target.crop, plane)


def _em(build: Build, crop: str, plane: Slices) -> dict[str, str]:
    """The EM under a plane along z, where it is at hand."""
    levels = build.em(build.dataset(crop))
    values = None if levels is None else pictures.em_window(levels, build.grid(crop), plane)
    return {} if values is None else {"em": pictures.grey(values[0])}
