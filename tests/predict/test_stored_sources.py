"""What other tools wrote is taken for what the recipe says that it is, and refused where it cannot be that."""

from pathlib import Path

import numpy as np
import pytest

from ensemble.cli import main
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target, write_manifest
from ensemble.plan.recipe import LabelSource, PredictionSource
from ensemble.predict.stored_sources import open_labels, open_predictions
from ensemble.submission.reader import Submission
from ensemble.support.errors import VolumeError
from tests.predict.test_probabilities import _write_channels
from tests.support.volumes import write_array

GRID = Grid((16, 16, 16), (8, 8, 8), (100, 200, 300))
TARGET = Target("900", "tiny", GRID, ("mito",))
BALL = np.zeros(GRID.shape, bool)
BALL[4:12, 4:12, 4:12] = True


def probability(root: Path, data: np.ndarray, **told) -> np.ndarray:
    write_array(root / "p/crop900/mito", data, GRID)
    source = PredictionSource("{root}/p/{crop}/{class}", **told)
    return open_predictions(source, str(root), TARGET, ["mito"])["mito"].over(GRID).probability(GRID, "linear")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (BALL, {}),
        (BALL.astype("u1") * 255, {}),
        (BALL.astype("f2"), {}),
        (BALL.astype("u1"), {"scale": 1}),
        (BALL.astype("u2") * 255, {"scale": 255}),
        (BALL.astype("i8") * 100, {"scale": 100}),
        (BALL.astype("f4") * 255, {"scale": 255}),
        (np.where(BALL, 40, -40).astype("f4"), {"activation": "sigmoid"}),
    ],
)
def test_values_are_what_the_source_says(tmp_path, data, told):
    assert np.allclose(probability(tmp_path, data, **told), BALL, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "told", "message"),
    [
        (BALL.astype("i4"), {}, "its type int32 does not hold probabilities; use uint8 or float, or say labels:"),
        (BALL.astype("c8"), {}, "its type complex64 is none of numbers"),
        (BALL.astype("u2") * 256, {"scale": 255}, "values run from 0 to 256; scale: 255 of its source is not theirs"),
        (BALL.astype("u1"), {"activation": "sigmoid"}, "its type uint8 does not hold raw outputs; drop activation"),
        (BALL * np.float32(np.nan), {"activation": "sigmoid"}, "3584 voxels are NaN|512 voxels are NaN|4096 voxels"),
        (np.where(BALL, 4, -4).astype("f4"), {}, "values run from -4.0 to 4.0; .*activation: sigmoid or softmax"),
    ],
)
def test_what_they_cannot_be_is_told(tmp_path, data, told, message):
    with pytest.raises(VolumeError, match=message):
        probability(tmp_path, data, **told)


@pytest.mark.parametrize("layout", ["v2", "v3", "ngff"])
def test_softmax_is_taken_over_all_channels(tmp_path, layout):
    raw = np.random.default_rng(0).normal(0, 3, (3, *GRID.shape)).astype(np.float32)
    _write_channels(tmp_path / "p", raw, GRID, layout)
    source = PredictionSource("{root}/p", (None, "mito", "er"), "softmax")
    found = open_predictions(source, str(tmp_path), TARGET, ["mito", "er"])
    expected = np.exp(raw) / np.exp(raw).sum(axis=0)
    for index, name in ((1, "mito"), (2, "er")):
        assert np.allclose(found[name].over(GRID).probability(GRID, "linear"), expected[index], atol=1e-6)


def test_what_a_source_says_is_part_of_what_decides(tmp_path):
    write_array(tmp_path / "p/crop900/mito", BALL.astype("f4"), GRID)
    ways = ({}, {"scale": 1}, {"scale": 255}, {"activation": "sigmoid"})
    sources = [PredictionSource("{root}/p/{crop}/{class}", **told) for told in ways]
    assert len({open_predictions(s, str(tmp_path), TARGET, ["mito"])["mito"].identity for s in sources}) == len(ways)


def test_labels_are_whole_numbers_from_0_on_every_voxel(tmp_path):
    place = write_array(tmp_path / "l", np.where(BALL, 5, 0).astype("i4"), GRID)
    labels = open_labels(LabelSource("{root}/l"), str(tmp_path), TARGET, "mito").over(GRID)
    assert np.array_equal(labels.probability(GRID, "linear"), BALL)
    write_array(place, np.where(BALL, 5, -1).astype("i4"), GRID)
    with pytest.raises(VolumeError, match="l: has the id -1; ids are not negative"):
        open_labels(LabelSource("{root}/l"), str(tmp_path), TARGET, "mito").over(GRID)
    write_array(place, BALL.astype("f4"), GRID)
    with pytest.raises(VolumeError, match="its type float32 does not hold labels; use whole numbers"):
        open_labels(LabelSource("{root}/l"), str(tmp_path), TARGET, "mito")


def test_masks_given_as_predictions_are_refused_each_time_and_taken_as_soon_as_it_is_said(place, capsys):
    write_manifest(place / "m.csv", [TARGET])
    write_array(place / "data/p/crop900/mito", BALL.astype("u1"), GRID)
    recipe = "name: r\nsources: {p: {predictions: '{root}/p/{crop}/{class}'}}\nclasses: {mito: {source: p}}\n"
    ask = ["build", "r.yaml", "--manifest", "m.csv"]
    (place / "r.yaml").write_text(recipe)
    for _ in range(2):  # what was assembled before is not read again
        assert main(ask) == 2
        assert "mito: the highest value of source p is 1 where uint8 goes up to 255" in capsys.readouterr().err
        assert not Path("build/r/submission.zip").exists()
    write_manifest(place / "m.csv", [TARGET, Target("901", "tiny", GRID, ("mito",))])
    write_array(place / "data/p/crop901/mito", BALL.astype("u1") * 200, GRID)
    assert main(ask) == 0  # a source that is sure elsewhere
    with Submission.open(Path("build/r/submission.zip")) as submission:
        assert not submission.read("crop900", "mito", GRID.box).any()
    write_manifest(place / "m.csv", [TARGET])
    for change in (("predictions:", "labels:"), ("{predictions", "{scale: 1, predictions")):
        (place / "r.yaml").write_text(recipe.replace(*change))
        assert main([*ask, "--overwrite"]) == 0
        with Submission.open(Path("build/r/submission.zip")) as submission:
            assert np.array_equal(submission.read("crop900", "mito", GRID.box) > 0, BALL)


def build(root: Path, source: str, capsys) -> tuple[int, str]:
    """How a build of one source ends, and what it says."""
    write_manifest(root / "m.csv", [TARGET])
    (root / "r.yaml").write_text(f"name: r\nsources: {{p: {source}}}\nclasses: {{mito: {{source: p}}}}\n")
    return main(["build", "r.yaml", "--manifest", "m.csv", "--overwrite"]), capsys.readouterr().err


def test_softmax_of_nnunet_becomes_a_submission_where_its_source_says_that_it_lies(place, capsys):
    inside = np.where(BALL, 0.9, 0.2).astype(np.float32)
    (place / "data").mkdir(exist_ok=True)
    np.savez_compressed(place / "data/crop900.npz", probabilities=np.stack([1 - inside, inside]))
    said = "predictions: '{root}/{crop}.npz', channels: [null, mito]"
    code, error = build(place, f"{{{said}}}", capsys)
    assert code == 2 and "crop900.npz: nothing says its voxel size and origin; say grid: " in error
    assert "Traceback" not in error
    assert build(place, f"{{{said}, grid: crop}}", capsys)[0] == 0
    with Submission.open(Path("build/r/submission.zip")) as submission:
        assert np.array_equal(submission.read("crop900", "mito", GRID.box) > 0, BALL)


def test_labels_of_hdf5_become_a_submission_and_other_files_are_refused_in_a_line(place, capsys):
    h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
    corner = [origin - 4 for origin in GRID.origin_nm]
    (place / "data").mkdir(exist_ok=True)
    with h5py.File(place / "data/all.h5", "w") as file:
        file["crop900/mito"] = BALL.astype("u8") * 70_000
        file["crop900/mito"].attrs.update({"resolution": GRID.voxel_size_nm, "offset": corner})
    assert build(place, "{labels: '{root}/all.h5:/{crop}/{class}'}", capsys)[0] == 0
    with Submission.open(Path("build/r/submission.zip")) as submission:
        assert np.array_equal(submission.read("crop900", "mito", GRID.box) > 0, BALL)
    code, error = build(place, "{labels: '{root}/all.h5:/{crop}/er'}", capsys)
    assert code == 2 and "all.h5:/crop900/er: there is no such array in the file (it holds /crop900/mito)" in error
