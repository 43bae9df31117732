"""Probabilities that another tool wrote, all classes in one array, are a source like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from ensemble.cli import main
from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.predict.probabilities import StoredLabels, StoredProbabilities
from ensemble.storage.volume import open_volume
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


def test_values_beyond_one_are_no_probabilities(tmp_path) -> None:
    stored = np.full(SMALL.shape, 0.5, np.float32)
    stored[3, 3, 3] = 1.5
    p = StoredProbabilities(open_volume(write_array(tmp_path / "p", stored, SMALL)))
    with pytest.raises(VolumeError, match=r"values run from 0.5 to 1.5; write probabilities from 0 to 1"):
        p.over(SMALL)


def test_a_label_is_certain_and_keeps_its_id(tmp_path) -> None:
    stored = np.zeros(SMALL.shape, np.uint32)
    stored[2:4, 2:4, 2:4] = 70_000
    labels = StoredLabels(open_volume(write_array(tmp_path / "l", stored, SMALL)))
    assert np.array_equal(labels.probability(SMALL, "linear"), stored > 0)
    assert np.array_equal(labels.ids(SMALL), stored)
    assert labels.bounds(SMALL) == (0, 1)
