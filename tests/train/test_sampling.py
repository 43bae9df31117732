"""Which patches a network is shown, turned how, and judged by which."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ensemble.train.crops import SURE, UNKNOWN, open_crops
from ensemble.train.patch_cache import PatchReader
from ensemble.train.sampling import PatchSampler, ValidationPatches, index_foreground, positions
from ensemble.train.spec import TrainingSpec
from tests.support.annotated import noise, write_em, write_truth
from tests.support.small_crops import opened, spec_of


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
    forwards = [sampler(tmp_path, spec).patch(i) for i in range(6)]
    again = sampler(tmp_path, spec)
    for i in (5, 0, 3):
        np.testing.assert_array_equal(again.patch(i).grey, forwards[i].grey)
        assert again.patch(i).view == forwards[i].view
    other = sampler(tmp_path, spec_of(augment=spec.augment, seed=1))
    assert not any(np.array_equal(other.patch(i).grey, forwards[i].grey) for i in range(6))
    assert not any(other.patch(i).view == forwards[i].view for i in range(6))


def test_a_process_that_is_started_anew_can_be_sent_the_sampler(tmp_path):
    write_em(tmp_path, noise(24, 24, 24))
    write_truth(tmp_path, "mito", noise(24, 24, 24, seed=3) // 200)
    patch = sampler(tmp_path, spec_of()).patch
    sent = pickle.loads(pickle.dumps(patch))
    np.testing.assert_array_equal(sent(3).grey, patch(3).grey)
    assert sent(3).view == patch(3).view


@pytest.mark.parametrize("shape", [(5, 9, 12), (4, 4, 4), (2, 7, 3)])
def test_validation_judges_every_voxel_of_a_crop_once(tmp_path, shape):
    write_em(tmp_path, noise(16, 16, 16))
    labels = np.ones(shape, np.uint8)
    write_truth(tmp_path, "mito", labels, origin_nm=(16, 16, 16))
    judged = ValidationPatches(PatchReader([opened(tmp_path, spec_of())]), (4, 4, 4))
    shown = [judged.patch(n) for n in range(len(judged))]
    assert sum((patch.codes == SURE).sum() for patch in shown) == labels.size
    assert all(patch.grey.shape == (4, 4, 4) for patch in shown)
    more = judged.patch(len(judged))
    np.testing.assert_array_equal(more.grey, shown[0].grey)
    assert (more.codes == UNKNOWN).all()
