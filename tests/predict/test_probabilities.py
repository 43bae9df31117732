"""Probabilities that another tool wrote, all classes in one array, are a source like any other."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.cli import main
from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities
from ensemble.predict.stored_values import Channel, Fractions, Ids, ReadableArray, Sigmoid
from ensemble.storage.opening import open_volume
from ensemble.submission.reader import Submission
from ensemble.support.errors import VolumeError
from tests.support.volumes import write_array

CHUNKS = (2, 16, 16, 16)
ASKED = ["build", "mine.yaml", "--manifest", "manifest.csv", "--classes", "mito,ecs", "--out", "build/mine"]
RECIPE = """\
name: mine
sources: {p: {predictions: '{root}/mine/{dataset}.zarr/{crop}', channels: [mito, null, ecs]}}
classes: {mito: {source: p}, ecs: {source: p}}
"""


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("layout", ["v2", "v3", "ngff"])
def test_predictions_with_all_classes_in_one_array(place, capsys, dtype: str, layout: str) -> None:
    """Channels first, of any type and on a grid of its own, as an array of Zarr v2 or v3 or an OME-NGFF group."""
    grid = Grid((40, 24, 28), (8, 16, 16), (4, 8, 8))
    p = np.zeros((3, *grid.shape), np.float32)
    p[0, :, :7], p[2, :, 7:] = 1, 1
    stored = (p * 255).astype(np.uint8) if dtype == "uint8" else p.astype(dtype)
    for group in ("crop1", "crop2"):
        _write_channels(place / "data/mine/d.zarr" / group, stored, grid, layout)
    (place / "mine.yaml").write_text(RECIPE)
    assert main(ASKED) == 0
    with Submission.open(Path("build/mine/submission.zip")) as submission:
        crop1 = Box.of_shape((70, 18, 20))
        mito, ecs = (submission.array("crop1", name).read(crop1) for name in ("mito", "ecs"))
    y_nm = 82 + 4 * np.arange(18)
    below = np.broadcast_to((y_nm < 112)[None, :, None], mito.shape)  # between the voxels at 104 and 120 nm
    assert ((mito > 0) == below).all()
    assert ((ecs > 0) == ~below).all()
    for change, message in (
        ((", null", ""), "where 2 channels and z, y, x are expected"),
        ((", channels: [mito, null, ecs]", ""), "4 axes where three are expected: z, y, x; name the class"),
        (("[mito, null, ecs]", "[mito, null, null]"), "the recipe's channels hold no ecs, only mito"),
        (("[mito, null, ecs]", "[mito, null, mito]"), "channels[2]: mito is there twice"),
        (("[mito, null, ecs]", "[mito, null, mitto]"), "channels[2]: unknown class 'mitto'; did you mean 'mito'?"),
    ):
        (place / "mine.yaml").write_text(RECIPE.replace(*change))
        assert main(ASKED) == 2
        assert message in capsys.readouterr().err


def _write_channels(where: Path, data: np.ndarray, grid: Grid, layout: str) -> None:
    placed = {"voxel_size": list(grid.voxel_size_nm), "translation": list(grid.origin_nm)}
    if layout != "ngff":
        made = {"zarr_format": int(layout[1]), "attributes": placed, "overwrite": True}
        zarr.create_array(str(where), data=data, chunks=CHUNKS, **made)
        return
    zarr.create_array(str(where / "0"), data=data, chunks=CHUNKS, zarr_format=3)
    transforms = [
        {"type": "scale", "scale": [1, *grid.voxel_size_nm]},
        {"type": "translation", "translation": [0, *grid.origin_nm]},
    ]
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "nanometer"} for a in "zyx")]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    (where / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))


def test_a_changed_channel_is_built_anew(place) -> None:
    grid = Grid((40, 24, 28), (8, 16, 16), (4, 8, 8))
    data = np.zeros((2, *grid.shape), np.float32)
    for group in ("crop1", "crop2"):
        _write_channels(place / "data/mine/d.zarr" / group, data, grid, "v2")
    (place / "mine.yaml").write_text(RECIPE.replace(", null", ""))
    assert main(ASKED) == 0
    data[1] = 1
    _write_channels(place / "data/mine/d.zarr/crop2", data, grid, "v2")
    assert main(ASKED) == 0
    with Submission.open(Path("build/mine/submission.zip")) as submission:
        assert (submission.array("crop2", "ecs").read(Box.of_shape((8, 6, 7))) > 0).all()


SMALL = Grid((6, 7, 8), (8, 8, 8), (4, 4, 4))


def test_whole_numbers_are_shares_of_their_largest_value(tmp_path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, SMALL.shape, dtype=np.uint8)
    p = StoredProbabilities(open_volume(write_array(tmp_path / "p", stored, SMALL)))
    assert np.allclose(p.probability(SMALL, "linear"), stored / 255, atol=1e-6)
    assert p.over(SMALL).bounds(SMALL) == pytest.approx((stored.min() / 255, stored.max() / 255))
    assert p.ids(SMALL) is None


def test_only_whole_numbers_that_nobody_explained_show_their_highest(tmp_path) -> None:
    stored = np.random.default_rng(0).integers(0, 90, SMALL.shape, dtype=np.uint8)
    volume = open_volume(write_array(tmp_path / "p", stored, SMALL))
    assert StoredProbabilities(volume, is_assumed=True).over(SMALL).highest() == stored.max()
    assert StoredProbabilities(volume).over(SMALL).highest() is None
    assert StoredLabels(volume).over(SMALL).highest() is None


def test_a_label_is_certain_and_keeps_its_id(tmp_path) -> None:
    stored = np.zeros(SMALL.shape, np.uint32)
    stored[2:4, 2:4, 2:4] = 70_000
    labels = StoredLabels(open_volume(write_array(tmp_path / "l", stored, SMALL)))
    assert np.array_equal(labels.probability(SMALL, "linear"), stored > 0)
    assert np.array_equal(labels.ids(SMALL), stored)
    assert labels.bounds(SMALL) == (0, 1)


INTEGERS = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)]
DTYPES = ["bool", *INTEGERS, "float16", "float32", "float64"]
WHOLE = Grid((9, 10, 11), (8, 8, 8), (4, 4, 4))


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray, object]:
    """Some chunks of values, and a fill value for the others."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind == "f":
        some = st.sampled_from([0, 0.1, 1 / 3, 0.5, 0.9999, 1, 1.0005, -0.0005, 1e-30, 2.5, -3, np.nan, np.inf])
    else:
        ends = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        some = st.sampled_from(sorted({0, 1, *(n for n in (2, 100, -1) if ends[0] <= n <= ends[1]), *map(int, ends)}))
    kinds = draw(st.lists(some, min_size=1, max_size=4))
    values = np.random.default_rng(draw(st.integers(0, 99))).choice(np.array(kinds, dtype), WHOLE.shape)
    return values, dtype.type(draw(some))


def written(root: Path, values: np.ndarray, fill: object, reader: str, chunks_there: int) -> ReadableArray:
    """The values as one of the readers has them; chunks that were not written are ``fill``."""
    data = values[None] if reader == "channel" else values
    chunks = (5, 5, 5) if data.ndim == 3 else (1, 5, 5, 5)
    place = root / "s.zarr/crop7/mito"
    options = {"zarr_format": 3 if reader == "v3" else 2, "fill_value": fill, "overwrite": True}
    attributes = {"voxel_size": list(WHOLE.voxel_size_nm), "translation": list(WHOLE.origin_nm)}
    made = zarr.create_array(
        str(place), shape=data.shape, chunks=chunks, dtype=data.dtype, attributes=attributes, **options
    )
    for box in list(WHOLE.box.tiles((5, 5, 5)))[:chunks_there]:
        index = (..., *box.slices)
        made[index] = data[index]
    if reader == "channel":
        return Channel(open_volume(place, channels=1), 0)
    if reader == "submission":
        for group in (root / "s.zarr", root / "s.zarr/crop7"):
            (group / ".zgroup").write_text('{"zarr_format": 2}')
        return Submission.open(root / "s.zarr").array("crop7", "mito")
    return open_volume(place)


def fields_of(array: ReadableArray) -> list[StoredLabels | StoredProbabilities]:
    """Everything that such an array may be taken for."""
    kind = array.dtype.kind
    labels = [] if kind == "f" else [StoredLabels(array), StoredLabels(Ids(array))]
    shares = [StoredProbabilities(array)] if kind in "ub" else []
    told = [StoredProbabilities(Fractions(array, whole)) for whole in (1, 255)]
    return [*labels, *shares, *told, *([StoredProbabilities(Fractions(Sigmoid(array)))] if kind == "f" else [])]


@settings(max_examples=60, deadline=None)
@given(
    made=arrays(),
    reader=st.sampled_from(["v2", "v3", "channel", "submission"]),
    there=st.integers(0, 8),
    start=st.tuples(*[st.integers(0, 5)] * 3),
    voxel_nm=st.sampled_from([8.0, 5.0, 3.3, 20.0]),
    method=st.sampled_from(["linear", "nearest"]),
)
def test_bounds_enclose_the_probability_of_every_reader_type_and_fill_value(
    made, reader, there, start, voxel_nm, method
) -> None:
    block = WHOLE.sub(Box.at(start, (3, 4, 5))).covering((voxel_nm, 8.0, voxel_nm))
    with tempfile.TemporaryDirectory() as folder:
        for field in fields_of(written(Path(folder), *made, reader, there)):
            try:
                in_memory = field.over(WHOLE)
            except VolumeError:
                continue  # no such values
            for one in (field, in_memory):
                p = one.probability(block, method)
                low, high = one.bounds(block)
                assert 0 <= low * (1 - 1e-5) <= p.min()
                assert p.max() <= high * (1 + 1e-5) <= 1 + 2e-5
