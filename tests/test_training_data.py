"""Patches of annotated crops: what a network is shown lies where it says, and what nobody knows is unknown."""

from pathlib import Path

import numpy as np
import pytest
from annotated import noise, write_em, write_truth

from ensemble.support.errors import TrainingError, VolumeError
from ensemble.train.crops import SURE, UNKNOWN, AnnotatedCrop, Patch, PatchReader, open_crop, open_crops
from ensemble.train.object_sizes import truth_sizes
from ensemble.train.patch_cache import BlockCache
from ensemble.train.sampling import PatchSampler, ValidationPatches, augment, index_foreground, positions
from ensemble.train.spec import TrainingSpec


def spec_of(**changed) -> TrainingSpec:
    plain = {
        "name": "tiny",
        "architecture": "UNet",
        "arguments": {},
        "classes": ["mito"],
        "voxel_size_nm": 8,
        "patch_voxels": 4,
        "crops": {"fly": ["1"]},
        "steps": 1,
        "learning_rate": 1e-3,
    }
    return TrainingSpec(**(plain | changed))


def opened(root: Path, spec: TrainingSpec) -> AnnotatedCrop:
    return open_crop(root, "fly", "1", spec, lambda: "spec.yaml:7: crops.fly[0]")


def box(*bounds: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in bounds)


def test_objects_of_the_truth_are_its_ids_and_components_only_of_a_mask(tmp_path):
    write_em(tmp_path, noise(70, 8, 8))
    truth = np.zeros((70, 8, 8), np.uint16)
    truth[60:68, 0:2, 0:2] = 300  # 32 voxels in two slabs
    truth[0:1, 4:6, 4:8] = truth[30:31, 4:6, 4:8] = 7  # one id, 16 voxels
    write_truth(tmp_path, "mito", truth)
    write_truth(tmp_path, "nuc", (truth > 0).astype(np.uint8))
    crop = opened(tmp_path, spec_of(classes=["mito", "nuc"]))
    assert truth_sizes([crop], ["mito", "nuc"]) == {"mito": {"13": 1, "14": 1}, "nuc": {"12": 2, "14": 1}}


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


def test_a_patch_is_the_same_whether_blocks_are_kept_or_not(tmp_path):
    write_em(tmp_path, noise(80, 24, 24), voxel_nm=6)
    write_truth(tmp_path, "mito", noise(70, 20, 20, seed=2) // 128, voxel_nm=6, origin_nm=(7, 9, 11))
    crop = opened(tmp_path, spec_of(voxel_size_nm=5))
    keeping, forgetting = PatchReader([crop]), PatchReader([crop], budget_bytes=0)
    for start in ((0, 0, 0), (50, 3, 9), (61, 8, 2), (50, 3, 9)):
        where = tuple(slice(a, a + 12) for a in start)
        one, other = keeping.patch(0, where), forgetting.patch(0, where)
        np.testing.assert_array_equal(one.grey, other.grey)
        np.testing.assert_array_equal(one.codes, other.codes)


def test_the_cache_keeps_what_was_used_last_within_its_budget():
    made = []

    def get(cache: BlockCache, key: str) -> None:
        cache.get(key, lambda: (made.append(key) or np.arange(100, dtype=np.uint8),))

    cache = BlockCache(budget_bytes=250)
    for key in "ab" + "a" + "c" + "a" + "b":
        get(cache, key)
    assert "".join(made) == "abcb"


def test_a_coarse_network_over_fine_truth_asks_for_small_blocks(tmp_path):
    write_em(tmp_path, noise(64, 64, 64), voxel_nm=2)
    write_truth(tmp_path, "mito", np.ones((64, 64, 64), np.uint8), voxel_nm=2)
    assert opened(tmp_path, spec_of(voxel_size_nm=32)).block_voxels() == (16, 16, 16)
    assert opened(tmp_path, spec_of(voxel_size_nm=2)).block_voxels() == (64, 64, 64)


def test_foreground_positions_are_voxels_of_the_class_and_no_more_than_asked_for(tmp_path):
    write_em(tmp_path, noise(24, 24, 24))
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[3:21, 5:19, 11] = 9
    write_truth(tmp_path, "mito", labels)
    crop = opened(tmp_path, spec_of())
    sample = positions(crop, 0, seed=1, limit=50)
    assert len(set(sample.tolist())) == 50
    assert all(labels[np.unravel_index(i, labels.shape)] == 9 for i in sample)
    whole = positions(crop, 0, seed=1, limit=1000)
    assert sorted(whole.tolist()) == np.flatnonzero(labels).tolist()


def sampler(root: Path, spec: TrainingSpec) -> PatchSampler:
    crops = open_crops(root, spec.crops, spec, "crops")
    foreground = index_foreground(crops, len(spec.classes), spec.seed, lambda done, total: None)
    return PatchSampler(PatchReader(crops), spec, foreground)


def test_a_rare_class_is_in_as_many_foreground_patches_as_a_common_one(tmp_path):
    write_em(tmp_path, noise(48, 48, 48))
    common, rare = np.zeros((2, 48, 48, 48), np.uint8)
    common[:, :, 24:] = 1
    rare[20:22, 20:22, 4:6] = 1
    write_truth(tmp_path, "er", common)
    write_truth(tmp_path, "ves", rare)
    spec = spec_of(classes=["er", "ves"], patch_voxels=8, foreground_share=1.0)
    shown = sampler(tmp_path, spec)
    held = np.array([(shown.patch(i).codes == SURE).any(axis=(1, 2, 3)) for i in range(300)])
    assert held.any(axis=1).all()
    assert 110 < held[:, 1].sum() < 190  # of 300; in patches laid anywhere it would be in 1 of 80


def test_without_foreground_share_patches_reach_everywhere(tmp_path):
    write_em(tmp_path, np.arange(12**3, dtype=np.uint16).reshape(12, 12, 12))
    write_truth(tmp_path, "mito", np.ones((12, 12, 12), np.uint8))
    shown = sampler(tmp_path, spec_of(foreground_share=0.0, patch_voxels=10, augment=[]))
    seen = np.unique([shown.patch(i).grey for i in range(300)])
    assert len(seen) == 12**3


def test_patch_i_is_the_same_whenever_it_is_asked_for_and_another_seed_shows_others(tmp_path):
    write_em(tmp_path, noise(24, 24, 24))
    write_truth(tmp_path, "mito", noise(24, 24, 24, seed=3) // 200)
    spec = spec_of(augment=["mirror", "transpose", "rotate", "intensity"])
    forwards = [sampler(tmp_path, spec).patch(i).grey for i in range(6)]
    again = sampler(tmp_path, spec)
    for i in (5, 0, 3):
        np.testing.assert_array_equal(again.patch(i).grey, forwards[i])
    other = sampler(tmp_path, spec_of(augment=spec.augment, seed=1))
    assert not any(np.array_equal(other.patch(i).grey, forwards[i]) for i in range(6))


@pytest.mark.parametrize("step", ["mirror", "transpose", "rotate"])
def test_augmentation_moves_truth_with_the_em(step):
    grey = noise(4, 6, 6).astype(np.float32)
    patch = Patch(grey, (grey > 128).astype(np.uint8)[None] * SURE)
    spec = spec_of(patch_voxels=[4, 6, 6], augment=[step])
    views = [augment(patch, spec, np.random.default_rng(seed)) for seed in range(40)]
    assert all(((view.grey > 128) * SURE == view.codes[0]).all() for view in views)
    assert {view.grey.shape for view in views} == {(4, 6, 6)}
    assert len({view.grey.tobytes() for view in views}) == {"mirror": 8, "transpose": 2, "rotate": 4}[step]
    assert all(view.grey.flags.c_contiguous and view.codes.flags.c_contiguous for view in views)


def test_anisotropic_voxels_are_never_turned_into_one_another():
    grey = noise(6, 6, 6).astype(np.float32)
    patch = Patch(grey, np.zeros((1, 6, 6, 6), np.uint8))
    spec = spec_of(voxel_size_nm=[30, 8, 8], patch_voxels=6, augment=["transpose", "rotate"])
    views = [augment(patch, spec, np.random.default_rng(seed)).grey for seed in range(30)]
    planes = {np.sort(plane.ravel()).tobytes() for plane in grey}
    assert all({np.sort(plane.ravel()).tobytes() for plane in view} == planes for view in views)


def test_another_exposure_changes_grey_values_alone():
    patch = Patch(noise(6, 6, 6).astype(np.float32), noise(1, 6, 6, 6))
    view = augment(patch, spec_of(patch_voxels=6, augment=["intensity"]), np.random.default_rng(0))
    assert not np.array_equal(view.grey, patch.grey)
    assert np.corrcoef(view.grey.ravel(), patch.grey.ravel())[0, 1] > 0.95
    np.testing.assert_array_equal(view.codes, patch.codes)


@pytest.mark.parametrize("shape", [(5, 9, 12), (4, 4, 4), (2, 7, 3)])
def test_validation_judges_every_voxel_of_a_crop_once(tmp_path, shape):
    write_em(tmp_path, noise(16, 16, 16))
    labels = np.ones(shape, np.uint8)
    write_truth(tmp_path, "mito", labels, origin_nm=(16, 16, 16))
    judged = ValidationPatches(PatchReader([opened(tmp_path, spec_of())]), (4, 4, 4))
    shown = [judged.patch(n) for n in range(len(judged))]
    assert sum((patch.codes == SURE).sum() for patch in shown) == labels.size
    assert all(patch.grey.shape == (4, 4, 4) for patch in shown)


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
