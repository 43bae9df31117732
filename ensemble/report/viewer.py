"""A build in neuroglancer: EM, probabilities and labels, served from this machine."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.core.grid import Grid
from ensemble.decode.mixing import Probability
from ensemble.plan.plan import CropPlan
from ensemble.plan.request import Request, prepare
from ensemble.predict.predictor import Predictor
from ensemble.report import facts, pictures
from ensemble.report.pictures import COLOURS
from ensemble.submission.reader import Submission
from ensemble.support.errors import EnsembleError, suggestion
from ensemble.support.files import write_text
from ensemble.support.progress import QuietProgress
from registry.store import Store

STATE = "neuroglancer.json"
MAX_COLOURED = 20_000
_SHADER = """\
#uicontrol vec3 colour color(default="COLOUR")
void main() { emitRGBA(vec4(colour, toNormalized(getDataValue()))); }
"""


@dataclass(frozen=True)
class Viewer:
    """``link`` opens in a browser as long as the process lives; ``state`` is the file that holds the layers."""

    link: str
    state: Path
    viewer: Any

    def serve(self) -> None:
        """Stay until interrupted."""
        while True:
            time.sleep(1)


class _Lazy:
    """An array that neuroglancer asks for blocks, read only then."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Callable[[tuple[slice, ...]], np.ndarray]) -> None:
        self.shape, self.dtype, self.ndim, self._read = shape, np.dtype(dtype), len(shape), read

    def __getitem__(self, index: Any) -> np.ndarray:
        bounds = (s.indices(n) for s, n in zip(index, self.shape, strict=True))
        return np.asarray(self._read(tuple(slice(start, stop) for start, stop, _ in bounds)), self.dtype)


def open_viewer(
    out: Path,
    store: Store,
    *,
    crop: str | None = None,
    classes: Sequence[str] | None = None,
    port: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Viewer:
    """Serve one crop of a build: a layer of EM, and of each class its labels and its probability.

    Raises EnsembleError for a folder without a build, an unknown crop or class, or without neuroglancer.
    """
    try:
        import neuroglancer
    except ImportError as error:
        raise EnsembleError("neuroglancer is not installed: pip install neuroglancer") from error
    build = facts.FinishedBuild.of(out)
    crop = _known(crop, build.plan["crops"])
    said = build.plan["crops"][crop]
    rows = build.check["arrays"].get(f"crop{crop}", {})
    held = [n for n, row in rows.items() if row["nonzero_voxels"]]
    names = [_known(name, said["classes"]) for name in classes] if classes else held
    grid = Grid(tuple(said["grid"]["shape"]), tuple(said["grid"]["voxel_size_nm"]), tuple(said["grid"]["origin_nm"]))
    plan, fields = _probabilities(out, store, crop, say)
    neuroglancer.set_server_bind_address("127.0.0.1", port)
    viewer = neuroglancer.Viewer()
    submission = Submission.open(out / "submission.zip")
    with viewer.txn() as state:
        state.dimensions = neuroglancer.CoordinateSpace(names=list("zyx"), units="nm", scales=[1, 1, 1])
        state.position = [o + v * n / 2 for o, v, n in zip(grid.origin_nm, grid.voxel_size_nm, grid.shape, strict=True)]
        _add_em(neuroglancer, state, build, said["dataset"], say)
        for index, name in enumerate(names):
            array = submission.array(f"crop{crop}", name)
            labels = _Lazy(grid.shape, _wide(array.dtype), array.read)
            colour = _hex(COLOURS[index % len(COLOURS)])
            source = _volume(neuroglancer, labels, grid, "segmentation")
            highest = rows.get(name, {}).get("highest_id", 0)
            state.layers[name] = neuroglancer.SegmentationLayer(source=source, segment_colors=_colours(highest))
            if plan is not None and name in plan.claimed:
                p = _Lazy(grid.shape, np.float32, _reader(Probability(plan, fields), name))
                source = _volume(neuroglancer, p, grid, "image")
                layer = neuroglancer.ImageLayer(source=source, shader=_SHADER.replace("COLOUR", colour))
                state.layers.append(name=f"{name} probability", layer=layer, visible=False)
    path = out / STATE
    write_text(path, json.dumps(viewer.state.to_json(), indent=1) + "\n")
    return Viewer(viewer.get_viewer_url(), path, viewer)


def _colours(highest_id: int) -> dict[int, str]:
    """The report's colours of the objects; of very many neuroglancer's own."""
    ids = np.arange(1, highest_id + 1 if highest_id <= MAX_COLOURED else 1)
    return {int(i): _hex(COLOURS[pictures.colour_of(i)]) for i in ids}


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{c:02x}" for c in colour)


def _reader(probability: Probability, name: str) -> Callable[[tuple[slice, ...]], np.ndarray]:
    return lambda block: probability.unfilled(name, block)


def _known(name: str | None, known: Any) -> str:
    if name is None:
        return next(iter(known))
    plain = str(name).removeprefix("crop")
    if plain not in known:
        raise EnsembleError(f"{name}: not in this build{suggestion(plain, known)}")
    return plain


def _probabilities(
    out: Path, store: Store, crop: str, say: Callable[[str], None]
) -> tuple[CropPlan | None, dict[tuple[str, str], Any]]:
    try:
        request = Request.again(out)
        prepared = prepare(request, store)
        plan = next(one for one in prepared.plan.crops if one.target.crop == crop)
        return plan, Predictor(request, prepared, store, QuietProgress()).fields(plan)
    except EnsembleError as error:
        say(f"without probabilities: {error}")
        return None, {}


def _add_em(
    neuroglancer: Any, state: Any, build: facts.FinishedBuild, dataset: str, say: Callable[[str], None]
) -> None:
    levels = build.em(dataset)
    if levels is None:
        say(f"without EM: that of {dataset} is not under {build.data_root}")
        return
    finest = levels[0]
    em = _Lazy(finest.grid.shape, finest.dtype, finest.read)
    state.layers["EM"] = neuroglancer.ImageLayer(source=_volume(neuroglancer, em, finest.grid, "image"))


def _volume(neuroglancer: Any, data: _Lazy, grid: Grid, kind: str) -> Any:
    """The array where it lies in space, to a fraction of a voxel."""
    space = neuroglancer.CoordinateSpace(names=list("zyx"), units="nm", scales=list(grid.voxel_size_nm))
    moved = [c / v for c, v in zip(grid.corner_nm, grid.voxel_size_nm, strict=True)]
    matrix = [[float(row == column) for column in range(3)] + [moved[row]] for row in range(3)]
    return neuroglancer.LayerDataSource(
        url=neuroglancer.LocalVolume(data, dimensions=space, volume_type=kind),
        transform=neuroglancer.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix),
    )


def _wide(dtype: np.dtype) -> np.dtype:
    """Neuroglancer knows labels of 8 bits and more."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype
