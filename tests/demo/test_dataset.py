"""The synthetic data set as it is written: manifests, EM and truth that fit each other."""

from dataclasses import replace

import cc3d
import numpy as np
import pytest
import zarr

from ensemble.core import classes as taxonomy
from ensemble.core import manifest
from ensemble.demo import dataset as phantom
from ensemble.demo.scene import Scene
from ensemble.support.errors import VolumeError
from tests.support.small_phantom import ATOMS, SCORED, UNIONS, digest, em_path, small_sample


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


INSTANCES = ("nuc", "mito", "ves", "ld", "np", "cell")


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
