"""Patches shown as their views say: truth moves with the EM, and exposure changes grey values alone."""

import numpy as np
import pytest
import torch

from ensemble.train.augmentation import shown
from ensemble.train.crops import SURE
from ensemble.train.views import Exposure, View, draw_view
from tests.support.annotated import noise
from tests.support.small_crops import spec_of


def views(spec, count: int) -> list[View]:
    return [draw_view(spec, np.random.default_rng(seed)) for seed in range(count)]


def batch(*shape: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same patch ``count`` times, and as truth where it is bright."""
    grey = torch.from_numpy(noise(*shape)).expand(count, 1, *shape)
    return grey, (grey > 128).byte() * SURE


@pytest.mark.parametrize(("step", "ways"), [("mirror", 8), ("transpose", 2), ("rotate", 4)])
def test_truth_moves_with_the_em(step, ways):
    spec = spec_of(patch_voxels=[4, 6, 6], augment=[step])
    grey, codes = shown(*batch(4, 6, 6, count=40), views(spec, 40))
    assert grey.dtype == torch.float32
    assert grey.shape == codes.shape == (40, 1, 4, 6, 6)
    assert torch.equal((grey > 128).byte() * SURE, codes)
    assert len({patch.numpy().tobytes() for patch in grey}) == ways


def test_a_patch_is_mirrored_then_swapped_then_turned():
    grey, codes = batch(4, 4, 4, count=1)
    view = View(flips=(-3, -1), swaps=((-2, -1),), plane=(-3, -2), turns=1)
    plain = grey[0, 0].numpy().astype(np.float32)
    expected = np.rot90(plain[::-1, :, ::-1].swapaxes(1, 2), 1, (0, 1))
    np.testing.assert_array_equal(shown(grey, codes, [view])[0][0, 0], expected)


def test_anisotropic_voxels_are_never_turned_into_one_another():
    spec = spec_of(voxel_size_nm=[30, 8, 8], patch_voxels=6, augment=["transpose", "rotate"])
    grey, codes = batch(6, 6, 6, count=30)
    planes = {np.sort(plane.ravel()).tobytes() for plane in grey[0, 0].float().numpy()}
    for patch in shown(grey, codes, views(spec, 30))[0]:
        assert {np.sort(plane.ravel()).tobytes() for plane in patch[0].numpy()} == planes


def test_another_exposure_changes_grey_values_alone_and_by_the_patchs_own_contrast():
    grey, codes = batch(12, 12, 12, count=3)
    plain = grey[0, 0].numpy().astype(np.float64)
    told = [Exposure(1.2, 0.0, 0.0, 1), Exposure(1.0, -0.25, 0.0, 1), Exposure(1.0, 0.0, 0.1, 1)]
    exposed, same = shown(grey, codes, [View(exposure=one) for one in told])
    assert torch.equal(same, codes)
    contrast, shift, noisy = exposed[:, 0].numpy()
    np.testing.assert_allclose(contrast, plain.mean() + 1.2 * (plain - plain.mean()), rtol=1e-4)
    np.testing.assert_allclose(shift, plain - 0.25 * plain.std(), atol=1e-2)
    assert np.std(noisy - plain) == pytest.approx(0.1 * plain.std(), rel=0.1)
    again = shown(grey, codes, [View(exposure=one) for one in told])[0]
    assert torch.equal(again, exposed)
    other = shown(grey[:1], codes[:1], [View(exposure=told[2]._replace(noise_seed=2))])[0]
    assert not torch.equal(other[0], exposed[2])
