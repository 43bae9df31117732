"""What the demo and everyone who tests on the phantom rely on: truth that is exact, and EM that fits it."""

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cc3d
import numpy as np
import pytest
import zarr

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.demo import dataset as phantom
from ensemble.demo.scene import Scene
from ensemble.demo.tissue import Seed
from ensemble.support.errors import VolumeError

SCORED = next(target.classes for target in manifest.official_manifest() if target.crop == "557")

# Written out from the challenge's table, for the atoms that the phantom draws.
UNIONS = {
    "mito": {"mito_mem", "mito_lum"},
    "ves": {"ves_mem", "ves_lum"},
    "ld": {"ld_mem", "ld_lum"},
    "np": {"np_out", "np_in"},
    "ne": {"ne_mem", "ne_lum", "np_out", "np_in"},
    "er": {"er_mem", "er_lum", "ne_mem", "ne_lum", "np_out", "np_in"},
    "er_mem_all": {"er_mem", "ne_mem"},
    "ne_mem_all": {"ne_mem", "np_out", "np_in"},
    "chrom": {"hchrom", "echrom"},
    "nuc": {"ne_mem", "ne_lum", "np_out", "np_in", "hchrom", "echrom", "nucpl"},
}
ATOMS = {*set.union(*UNIONS.values()), "pm", "cyto", "ecs"}
INSTANCES = ("nuc", "mito", "ves", "ld", "np", "cell")


def small_sample() -> phantom.Sample:
    """0.5 x 0.6 x 0.8 µm with everything a full sample has, half of it to learn from and half to predict."""
    em = Grid((64, 75, 96), (8.0, 8.0, 8.0), (100.25, 200.0, 300.5))
    test = Grid((25, 28, 22), (16.0, 16.0, 16.0), (152.25, 252.0, 704.5))
    return phantom.Sample(
        dataset="phantom-small",
        em=em,
        seeds=(Seed((250, 250, 200), 330, nucleated=True), Seed((250, 350, 650), 190)),
        test=Target("703", "phantom-small", test, SCORED),
        training={"603": (slice(4, 60), slice(5, 70), slice(0, 48))},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("small")
    phantom.write_samples(root, [small_sample()], seed=3)
    return root


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample.scene((0, number)) for number, sample in enumerate(phantom.SAMPLES)]


@pytest.fixture(scope="module")
def crops(scenes) -> dict[str, dict[str, np.ndarray]]:
    """Truth of the three test crops, classes by crop."""
    truths = {}
    for sample, scene in zip(phantom.SAMPLES, scenes, strict=True):
        painted = scene.on(sample.test.grid)
        truths[sample.test.crop] = {name: phantom.truth_of(painted, name) for name in SCORED}
    return truths


def em_path(root: Path, dataset: str = "phantom-small") -> Path:
    return root / "data" / dataset / f"{dataset}.zarr" / "recon-1" / "em" / "fibsem-uint8"


def levels_of(path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Values, voxel size and centre of the first voxel of each level, as the metadata has them."""
    (image,) = json.loads((path / ".zattrs").read_text())["multiscales"]
    levels = []
    for row in image["datasets"]:
        scale, translation = row["coordinateTransformations"]
        values = zarr.open_array(path / row["path"], mode="r")[...]
        levels.append((values, np.array(scale["scale"]), np.array(translation["translation"])))
    return levels


def digest(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("crop", ["701", "702", "703"])
def test_every_voxel_is_exactly_one_atom(crops, crop):
    count = sum((crops[crop][name] > 0).astype(np.uint8) for name in ATOMS)
    assert (count == 1).all()


@pytest.mark.parametrize("crop", ["701", "702", "703"])
def test_a_composite_is_the_union_of_its_atoms(crops, crop):
    truth = crops[crop]
    for name, parts in UNIONS.items():
        union = np.logical_or.reduce([truth[part] > 0 for part in parts])
        assert np.array_equal(truth[name] > 0, union), name
    assert np.array_equal(truth["cell"] > 0, truth["ecs"] == 0)


@pytest.mark.parametrize("crop", ["701", "702", "703"])
def test_objects_are_numbered_without_gaps_and_each_is_in_one_piece(crops, crop):
    for name in INSTANCES:
        labels = crops[crop][name]
        assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1)), name
        pieces = cc3d.connected_components(labels, connectivity=26)
        assert pieces.max() == labels.max(), name


def test_the_test_crops_hold_plenty_of_every_class(crops):
    everywhere = ("ecs", "pm", "mito", "nuc", "er", "ves", "ld")
    for name in everywhere:
        assert np.count_nonzero(crops["701"][name]) >= 2000, name
    for name in (*everywhere, "mito_mem", "mito_lum", "ne", "np", "cell", "cyto"):
        assert sum(np.count_nonzero(truth[name]) for truth in crops.values()) >= 2000, name


@pytest.mark.parametrize("crop", ["701", "702", "703"])
def test_mitochondria_touch_and_keep_their_own_ids(crops, crop):
    labels = crops[crop]["mito"]
    contacts = 0
    for axis in range(3):
        near, far = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        contacts += np.count_nonzero((near != far) & (near > 0) & (far > 0))
    assert contacts > 100


def test_cells_touch_somewhere(crops):
    labels = crops["701"]["cell"]
    assert labels.max() >= 2
    touching = (labels[:, :, 1:] != labels[:, :, :-1]) & (labels[:, :, 1:] > 0) & (labels[:, :, :-1] > 0)
    assert touching.any()


def test_classes_that_the_tissue_lacks_are_empty(crops):
    for name in set(SCORED) - ATOMS - set(UNIONS) - {"cell"}:
        assert not crops["701"][name].any(), name


def test_truth_at_a_place_does_not_depend_on_the_grid():
    """Every third voxel of a fine grid has its centre on a voxel of a coarse one."""
    scene = small_sample().scene((3, 0))
    fine = Grid((60, 66, 72), (4.0, 5.0, 6.0), (200.0, 330.0, 450.0))
    coarse = Grid((19, 21, 23), (12.0, 15.0, 18.0), (208.0, 345.0, 456.0))
    expected = scene.atoms_on(fine)[2::3, 3::3, 1::3][:19, :21, :23]
    assert len(np.unique(expected)) > 10
    assert np.mean(scene.atoms_on(coarse) != expected) < 1e-4
    cells = scene.instances_on(fine, "cell")[2::3, 3::3, 1::3][:19, :21, :23]
    assert np.mean(scene.instances_on(coarse, "cell") != cells) < 1e-4


def test_edges_of_702_are_edges_of_its_em_and_centres_lie_between():
    """EM from 1035.25 nm in steps of 4; the crop starts 53 of them further on, with voxels of 2 nm."""
    sample = phantom.SAMPLES[1]
    assert sample.em.corner_nm == (1035.25, 2409.5, 8803.75)
    assert sample.test.grid.voxel_size_nm == (2.0, 2.0, 2.0)
    assert sample.test.grid.origin_nm == (1035.25 + 53 * 4 + 1, 2409.5 + 110 * 4 + 1, 8803.75 + 415 * 4 + 1)


def test_crops_lie_in_their_em_with_context_and_apart_from_what_is_learned():
    for sample in phantom.SAMPLES:
        test = sample.test.grid
        room = [low - outer for low, outer in zip(test.corner_nm, sample.em.corner_nm, strict=True)]
        room += [outer - high for high, outer in zip(test.end_nm, sample.em.end_nm, strict=True)]
        assert min(room) >= 0
        assert sum(nm >= 90 for nm in room) >= 5
        for target in sample.training_targets:
            assert target.grid.end_nm[2] < test.corner_nm[2]
    assert phantom.SAMPLES[2].test.grid.end_nm[2] == phantom.SAMPLES[2].em.end_nm[2]


def test_each_training_crop_holds_a_whole_nucleus(scenes):
    for sample, scene in zip(phantom.SAMPLES, scenes, strict=True):
        for target in sample.training_targets:
            nuclei = scene.instances_on(target.grid.covering((16.0, 16.0, 16.0)), "nuc")
            whole = set(np.unique(nuclei)) - {0}
            for face in (nuclei[0], nuclei[-1], nuclei[:, 0], nuclei[:, -1], nuclei[..., 0], nuclei[..., -1]):
                whole -= set(np.unique(face))
            assert whole, target.crop


def test_each_level_is_the_mean_of_eight_voxels_at_their_middle(small):
    levels = levels_of(em_path(small))
    assert [values.shape for values, _, _ in levels] == [(64, 75, 96), (32, 37, 48), (16, 18, 24)]
    assert levels[0][2].tolist() == [100.25, 200.0, 300.5]
    assert levels[1][2].tolist() == [104.25, 204.0, 304.5]
    assert levels[2][2].tolist() == [112.25, 212.0, 312.5]
    for (fine, fine_nm, fine_at), (coarse, coarse_nm, coarse_at) in pairwise(levels):
        for index in [(0, 0, 0), (5, 7, 11), (15, 17, 23)]:
            start = [2 * i for i in index]
            children = fine[tuple(slice(a, a + 2) for a in start)]
            assert abs(children.mean() - coarse[index]) <= 0.5
            middle = fine_at + (np.array(start) + 0.5) * fine_nm
            assert np.allclose(coarse_at + np.array(index) * coarse_nm, middle)


def test_the_em_is_stored_as_the_challenge_stores_it(small):
    described = json.loads((em_path(small) / "s0" / ".zarray").read_text())
    assert described["zarr_format"] == 2
    assert described["dtype"] == "|u1"
    assert described["chunks"] == [64, 64, 64]
    assert described["dimension_separator"] == "/"
    assert described["compressor"]["id"] == "zstd"
    assert described["fill_value"] == 0
    (image,) = json.loads((em_path(small) / ".zattrs").read_text())["multiscales"]
    assert image["version"] == "0.4"
    assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert levels_of(em_path(small))[0][0].min() > 0


def test_the_em_shows_its_truth_where_the_truth_says_it_is(small):
    """Membranes are dark: their mean grey is lowest at no shift, so EM and labels share their frame."""
    em = levels_of(em_path(small))[0][0][4:60, 5:70, 0:48].astype(float)
    labels = em_path(small).parents[1] / "labels" / "groundtruth" / "crop603"
    ((membrane, _, at),) = levels_of(labels / "pm")
    assert at.tolist() == [100.25 + 32, 200.0 + 40, 300.5]
    inner = (slice(2, -2),) * 3
    grey = {}
    for axis in range(3):
        for shift in (-2, -1, 0, 1, 2):
            grey[axis, shift] = em[inner][np.roll(membrane, shift, axis)[inner] > 0].mean()
        assert min((-2, -1, 0, 1, 2), key=lambda shift, axis=axis: grey[axis, shift]) == 0
    ((outside, _, _),) = levels_of(labels / "ecs")
    assert em[outside > 0].mean() - em[membrane > 0].mean() > 50


def test_both_manifests_name_what_was_written(small):
    (test,) = manifest.load_manifest(small / "manifest.csv")
    assert test.classes == SCORED
    for name in test.classes:
        array = zarr.open_array(small / "truth.zarr" / "crop703" / name, mode="r")
        assert array.shape == (25, 28, 22)
        assert dict(array.attrs) == {
            "voxel_size": [16.0, 16.0, 16.0],
            "translation": [152.25, 252.0, 704.5],
            "shape": [25, 28, 22],
        }
        assert array.dtype == np.uint8
        assert taxonomy.is_instance(name) or set(np.unique(array[...])) <= {0, 1}
    (train,) = manifest.load_manifest(small / "train_manifest.csv")
    labels = em_path(small).parents[1] / "labels" / "groundtruth" / "crop603"
    assert {path.name for path in labels.iterdir()} == set(train.classes) == ATOMS | {"cell", *UNIONS}
    assert zarr.open_array(labels / "nuc" / "s0", mode="r").shape == train.grid.shape == (56, 65, 48)


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(small, tmp_path):
    phantom.write_samples(tmp_path, [small_sample()], seed=3)
    assert digest(tmp_path) == digest(small)
    phantom.write_samples(tmp_path, [small_sample()], seed=4)
    assert digest(tmp_path) != digest(small)


def test_an_interrupted_write_leaves_neither_truth_nor_manifest(tmp_path):
    def stop(dataset: str) -> None:
        if dataset == "phantom-second":
            raise KeyboardInterrupt

    (tmp_path / "manifest.csv").write_text("of an earlier phantom")
    both = [small_sample(), replace(small_sample(), dataset="phantom-second")]
    with pytest.raises(KeyboardInterrupt):
        phantom.write_samples(tmp_path, both, seed=3, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["phantom-small"]


@pytest.mark.parametrize(("seed", "place", "message"), [(0, "file", "file: cannot write"), (-1, ".", "seed -1")])
def test_what_cannot_be_written_is_told_in_one_line(tmp_path, seed, place, message):
    (tmp_path / "file").write_text("a file where a folder belongs")
    with pytest.raises(VolumeError, match=message) as caught:
        phantom.write_samples(tmp_path / place, [small_sample()], seed=seed)
    assert "\n" not in str(caught.value)
