"""Annotated crops: what a network is shown lies where it says, and what nobody knows is unknown."""

import numpy as np
import pytest

from ensemble.support.errors import TrainingError, VolumeError
from ensemble.train.crops import SURE, UNKNOWN, grey_range
from ensemble.train.patch_cache import PatchReader
from tests.support.annotated import noise, write_em, write_truth
from tests.support.small_crops import box, opened, spec_of


def test_at_the_voxel_size_of_the_em_a_patch_is_the_em_and_the_truth_voxel_by_voxel(tmp_path):
    em, truth = noise(20, 20, 20), noise(8, 9, 10, seed=1) > 128
    write_em(tmp_path, em)
    write_truth(tmp_path, "mito", truth.astype(np.uint8) * 7, origin_nm=(5 * 8, 6 * 8, 7 * 8))
    crop = opened(tmp_path, spec_of())
    patch = PatchReader([crop]).patch(0, box((1, 5), (2, 6), (3, 7)))
    assert crop.grid.shape == (8, 9, 10)
    np.testing.assert_array_equal(patch.grey, em[6:10, 8:12, 10:14])
    np.testing.assert_array_equal(patch.codes[0], truth[1:5, 2:6, 3:7] * SURE)


def test_truth_half_a_voxel_off_the_em_shares_its_border_voxels(tmp_path):
    write_em(tmp_path, noise(16, 16, 16))
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:, :, 4:] = 1
    write_truth(tmp_path, "mito", labels, origin_nm=(32, 32, 36))
    crop = opened(tmp_path, spec_of())
    row = PatchReader([crop]).patch(0, box((2, 3), (2, 3), (0, 9))).codes[0, 0, 0]
    # voxel centres at 32, 40 ... 96 nm; the truth begins at 32 nm, the class at 64 nm, the truth ends at 96 nm
    assert list(row) == [0, 0, 0, 0, SURE // 2, SURE, SURE, SURE, SURE]


def test_a_network_of_another_voxel_size_sees_the_em_where_it_physically_is(tmp_path):
    z, y, x = np.meshgrid(*[np.arange(40)] * 3, indexing="ij")
    write_em(tmp_path, (2 * z + 3 * y + x).astype(np.uint8), voxel_nm=4)
    write_truth(tmp_path, "mito", np.ones((10, 10, 10), np.uint8), voxel_nm=8, origin_nm=(40, 40, 40))
    crop = opened(tmp_path, spec_of(voxel_size_nm=10))
    assert not crop.reads_level
    assert crop.grid.origin_nm == (41, 41, 41)  # the truth begins at 36 nm
    grey = PatchReader([crop]).patch(0, box((0, 4), (0, 4), (1, 5))).grey
    nm = [41 + 10 * np.arange(4), 41 + 10 * np.arange(4), 51 + 10 * np.arange(4)]
    expected = (2 * nm[0][:, None, None] + 3 * nm[1][:, None] + nm[2]) / 4
    np.testing.assert_allclose(grey, expected, atol=1e-3)


def test_a_class_that_is_not_annotated_is_unknown_and_a_composite_is_the_union_of_its_parts(tmp_path):
    write_em(tmp_path, noise(8, 8, 8))
    labels = np.zeros((4, 8, 8, 8), np.uint8)
    for i in range(4):
        labels[i, :, :, 2 * i : 2 * i + 2] = 1
    for i, name in enumerate(["mito_mem", "mito_lum", "mito_ribo"]):
        write_truth(tmp_path, name, labels[i])
    spec = spec_of(classes=["mito", "er", "mito_lum"])
    codes = PatchReader([opened(tmp_path, spec)]).patch(0, box((0, 8), (0, 8), (0, 8))).codes
    assert list(codes[0, 3, 3]) == [SURE] * 6 + [0] * 2
    assert (codes[1] == UNKNOWN).all()
    assert list(codes[2, 3, 3]) == [0, 0, SURE, SURE, 0, 0, 0, 0]


def test_a_composite_with_a_part_missing_is_unknown(tmp_path):
    write_em(tmp_path, noise(8, 8, 8))
    write_truth(tmp_path, "mito_mem", np.ones((8, 8, 8), np.uint8))
    spec = spec_of(classes=["mito", "mito_mem"])
    codes = PatchReader([opened(tmp_path, spec)]).patch(0, box((0, 4), (0, 4), (0, 4))).codes
    assert (codes[0] == UNKNOWN).all()
    assert (codes[1] == SURE).all()


def test_around_a_slab_thinner_than_a_patch_em_is_mirrored_and_truth_unknown(tmp_path):
    em = noise(3, 12, 12)
    write_em(tmp_path, em)
    write_truth(tmp_path, "mito", np.ones((3, 12, 12), np.uint8))
    spec = spec_of(patch_voxels=[8, 4, 4])
    crop = opened(tmp_path, spec)
    assert crop.starts(spec.patch_voxels) == [(-5, 0), (0, 8), (0, 8)]
    patch = PatchReader([crop]).patch(0, box((-2, 6), (0, 4), (0, 4)))
    np.testing.assert_array_equal(patch.grey[:, 0, 0], em[[2, 1, 0, 1, 2, 1, 0, 1], 0, 0])
    assert [set(plane.ravel()) for plane in patch.codes[0]] == [{UNKNOWN}] * 2 + [{SURE}] * 3 + [{UNKNOWN}] * 3


def test_context_beyond_a_small_crop_is_the_em_that_is_there(tmp_path):
    em = noise(24, 24, 24)
    write_em(tmp_path, em)
    write_truth(tmp_path, "mito", np.ones((4, 4, 4), np.uint8), origin_nm=(80, 80, 80))
    spec = spec_of(patch_voxels=8)
    patch = PatchReader([opened(tmp_path, spec)]).patch(0, box((-4, 4), (-2, 6), (-1, 7)))
    np.testing.assert_array_equal(patch.grey, em[6:14, 8:16, 9:17])
    assert (patch.codes != UNKNOWN).sum() == 4 * 4 * 4


def test_a_coarse_network_over_fine_truth_asks_for_small_blocks(tmp_path):
    write_em(tmp_path, noise(64, 64, 64), voxel_nm=2)
    write_truth(tmp_path, "mito", np.ones((64, 64, 64), np.uint8), voxel_nm=2)
    assert opened(tmp_path, spec_of(voxel_size_nm=32)).block_voxels() == (16, 16, 16)
    assert opened(tmp_path, spec_of(voxel_size_nm=2)).block_voxels() == (64, 64, 64)


def test_a_crop_without_truth_of_any_class_is_named_with_what_it_has(tmp_path):
    write_em(tmp_path, noise(8, 8, 8))
    write_truth(tmp_path, "er", np.ones((8, 8, 8), np.uint8))
    with pytest.raises(TrainingError) as error:
        opened(tmp_path, spec_of())
    assert str(error.value) == ("spec.yaml:7: crops.fly[0]: none of mito is annotated in crop 1 of fly; it has er")


def test_a_crop_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path):
    write_em(tmp_path, noise(8, 8, 8))
    with pytest.raises(TrainingError, match=r"no truth at all in .*fly\.zarr/recon-1/labels/groundtruth/crop1$"):
        opened(tmp_path, spec_of())


def test_em_that_is_not_there_and_truth_outside_the_em_are_told(tmp_path):
    write_truth(tmp_path, "mito", np.ones((8, 8, 8), np.uint8), origin_nm=(8000, 0, 0))
    with pytest.raises(VolumeError, match="there is no such array"):
        opened(tmp_path, spec_of())
    write_em(tmp_path, noise(8, 8, 8))
    with pytest.raises(VolumeError, match="the crop lies outside the EM"):
        opened(tmp_path, spec_of())


def test_damaged_truth_is_told_by_chunk(tmp_path):
    write_em(tmp_path, noise(8, 8, 8))
    write_truth(tmp_path, "mito", noise(8, 8, 8))
    chunk = tmp_path / "fly/fly.zarr/recon-1/labels/groundtruth/crop1/mito/s0/0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    crop = opened(tmp_path, spec_of())
    with pytest.raises(VolumeError, match=r"crop1/mito/s0: chunk 0\.0\.0 cannot be read"):
        PatchReader([crop]).patch(0, box((0, 4), (0, 4), (0, 4)))


def test_the_range_is_that_of_what_patches_hold(tmp_path):
    grey = 100 + noise(40, 16, 16).astype(np.float32)
    grey[4:12] = 50  # before the crop
    grey[20, 3, 3] = np.nan
    grey[30:] = 2000  # behind it
    write_em(tmp_path, grey)
    write_truth(tmp_path, "mito", noise(16, 16, 16) // 128, origin_nm=(12 * 8, 0, 0))
    small, large = spec_of(), spec_of(patch_voxels=[20, 4, 4])
    inside = (np.nanmin(grey[12:28]), np.nanmax(grey[12:28]))
    assert grey_range([opened(tmp_path, small)], small.patch_voxels) == inside
    assert grey_range([opened(tmp_path, large)], large.patch_voxels) == (50, 2000)
    assert grey_range([], (4, 4, 4)) is None
