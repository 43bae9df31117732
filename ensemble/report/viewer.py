"""A build in neuroglancer: EM, probabilities and labels, served from this machine."""

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.core import Box, Grid, VoxelsZYX, zyx
from ensemble.report.build_probabilities import BuildProbabilities
from ensemble.report.finished_build import FinishedBuild
from ensemble.report.pictures import COLOURS, colour_of
from ensemble.submission import ArrayContents, Submission
from ensemble.support import EnsembleError, QuietProgress, suggestion, without_credentials, write_text
from registry import Registry

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


class _LazyArray:
    """An array that neuroglancer asks for blocks, read only then."""

    def __init__(self, shape: VoxelsZYX, dtype: np.dtype[Any], read: Callable[[Box], NDArray[Any]]) -> None:
        self.shape, self.dtype, self.ndim, self._read = shape, dtype, len(shape), read

    def __getitem__(self, index: Sequence[slice]) -> NDArray[Any]:
        bounds = [s.indices(n) for s, n in zip(index, self.shape, strict=True)]
        box = Box(zyx(start for start, _, _ in bounds), zyx(stop for _, stop, _ in bounds))
        return np.asarray(self._read(box), self.dtype)


def open_viewer(
    out: Path,
    store: Registry,
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
    build = FinishedBuild.of(out)
    crop = _known(crop, build.plan.crops)
    built = build.plan.crops[crop]
    contents = build.check.arrays.get(f"crop{crop}", {})
    not_empty = [name for name, row in contents.items() if row.nonzero_voxels]
    names = [_known(name, built.classes) for name in classes] if classes else not_empty
    try:
        probabilities = BuildProbabilities.open(build, store, QuietProgress(), crop)
    except EnsembleError as error:
        probabilities = BuildProbabilities()
        say(f"without probabilities: {error}")
    neuroglancer.set_server_bind_address("127.0.0.1", port)
    viewer = neuroglancer.Viewer()
    with viewer.txn() as state:
        layers = _Layers(neuroglancer, state, build.grid(crop))
        layers.set_position()
        _add_em(layers, build, built.dataset, say)
        submission = Submission.open(out / "submission.zip")
        for index, name in enumerate(names):
            layers.add_class(submission, probabilities, f"crop{crop}/{name}", contents.get(name), index)
    path = out / STATE
    write_text(path, json.dumps(viewer.state.to_json(), indent=1) + "\n")
    return Viewer(viewer.get_viewer_url(), path, viewer)


@dataclass(frozen=True)
class _Layers:
    """The layers of a viewer's state, which is being changed; ``grid`` is the crop's."""

    neuroglancer: Any
    state: Any
    grid: Grid

    def set_position(self) -> None:
        """In nm, the middle of the crop."""
        grid = self.grid
        self.state.dimensions = self.neuroglancer.CoordinateSpace(names=list("zyx"), units="nm", scales=[1, 1, 1])
        self.state.position = [
            o + v * n / 2 for o, v, n in zip(grid.origin_nm, grid.voxel_size_nm, grid.shape, strict=True)
        ]

    def add_class(
        self,
        submission: Submission,
        probabilities: BuildProbabilities,
        place: str,
        contents: ArrayContents | None,
        index: int,
    ) -> None:
        """A class's labels, and its probability where that is at hand, in the colour of an index."""
        group, name = place.split("/")
        array = submission.array(group, name)
        labels = self.source(_LazyArray(self.grid.shape, _wide(array.dtype), array.read), self.grid, "segmentation")
        colours = _colours(0 if contents is None else contents.highest_id)
        self.state.layers[name] = self.neuroglancer.SegmentationLayer(source=labels, segment_colors=colours)
        probability = probabilities.of(group.removeprefix("crop"), name)
        if probability is not None:
            p = _LazyArray(self.grid.shape, np.dtype(np.float32), probability.unfilled)
            shader = _SHADER.replace("COLOUR", _hex(COLOURS[index % len(COLOURS)]))
            layer = self.neuroglancer.ImageLayer(source=self.source(p, self.grid, "image"), shader=shader)
            self.state.layers.append(name=f"{name} probability", layer=layer, visible=False)

    def source(self, data: _LazyArray, grid: Grid, kind: str) -> Any:
        """The array where it lies in space, to a fraction of a voxel."""
        scales = list(grid.voxel_size_nm)
        space = self.neuroglancer.CoordinateSpace(names=list("zyx"), units="nm", scales=scales)
        moved = [c / v for c, v in zip(grid.corner_nm, grid.voxel_size_nm, strict=True)]
        matrix = [[float(row == column) for column in range(3)] + [moved[row]] for row in range(3)]
        return self.neuroglancer.LayerDataSource(
            url=self.neuroglancer.LocalVolume(data, dimensions=space, volume_type=kind),
            transform=self.neuroglancer.CoordinateSpaceTransform(output_dimensions=space, matrix=matrix),
        )


def _add_em(layers: _Layers, build: FinishedBuild, dataset: str, say: Callable[[str], None]) -> None:
    levels = build.em(dataset)
    if levels is None:
        say(f"without EM: that of {dataset} is not under {without_credentials(build.data_root)}")
        return
    finest = levels[0]
    em = _LazyArray(finest.grid.shape, finest.dtype, finest.read)
    layers.state.layers["EM"] = layers.neuroglancer.ImageLayer(source=layers.source(em, finest.grid, "image"))


def _colours(highest_id: int) -> dict[int, str]:
    """The report's colours of the objects; of very many neuroglancer's own."""
    ids = np.arange(1, highest_id + 1 if highest_id <= MAX_COLOURED else 1)
    return {int(i): _hex(COLOURS[colour_of(i)]) for i in ids}


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{c:02x}" for c in colour)


def _known(name: str | None, known: Collection[str]) -> str:
    """The name without "crop", the first for None. Raises EnsembleError for one that is not known."""
    if name is None:
        return next(iter(known))
    plain = str(name).removeprefix("crop")
    if plain not in known:
        raise EnsembleError(f"{name}: not in this build{suggestion(plain, known)}")
    return plain


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Neuroglancer knows labels of 8 bits and more."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype
