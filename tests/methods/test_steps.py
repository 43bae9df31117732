"""Post-processing: small cases by hand, whole volumes against the libraries."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.segmentation import watershed as skimage_watershed

from ensemble.methods import flooding
from ensemble.methods.method_table import Stage, Step
from ensemble.methods.steps import METHODS, closing, keep_ids, opening, smooth, watershed
from tests.support.blobs import ISOTROPIC, balls, blobs, same_up_to_ids


def test_smooth_is_as_wide_in_nm_along_every_axis() -> None:
    p = np.zeros((41, 21, 21), np.float32)
    p[20, 10, 10] = 1
    got = smooth(p, (4.0, 8.0, 8.0), sigma_nm=16.0)
    spread = [
        np.sqrt((got.sum(axis=tuple(a for a in range(3) if a != axis)) * (np.arange(n) - n // 2) ** 2).sum())
        for axis, n in enumerate(p.shape)
    ]
    assert np.allclose(np.array(spread) * (4, 8, 8), 16, rtol=0.05)


def test_closing_bridges_a_gap_and_opening_cuts_a_bridge() -> None:
    p = np.zeros((9, 9, 21), np.float32)
    p[:, :, :9] = p[:, :, 12:] = 0.9
    assert closing(p, ISOTROPIC, radius_nm=16.0)[4, 4, 9:12] == pytest.approx(0.9)
    p[4, 4, 9:12] = 0.9
    assert opening(p, ISOTROPIC, radius_nm=16.0)[4, 4, 10] == 0


@pytest.mark.parametrize("name", [m.name for m in METHODS.by_name.values() if m.stage is Stage.PROBABILITY])
def test_probability_steps_are_exact_with_their_stated_reach(name: str) -> None:
    method = METHODS.by_name[name]
    step = Step(method, {"sigma_nm": 9.0} if name == "smooth" else {"radius_nm": 17.0})
    p = np.random.default_rng(3).random((40, 36, 60), dtype=np.float32)
    voxel = (4.0, 8.0, 6.0)
    halo = int(np.ceil(step.reach_nm / 6))
    whole = step(p, voxel)
    part = step(p[:, :, 30 - halo : 34 + halo], voxel)
    assert np.allclose(part[:, :, halo : halo + 4], whole[:, :, 30:34], atol=1e-6)


def test_two_touching_balls_are_two_objects_and_one_ball_is_one() -> None:
    mask = balls((30, 30, 50), [(120, 120, 110), (120, 120, 230)], [75, 75], ISOTROPIC)
    labels = watershed(mask, ISOTROPIC, None, min_distance_nm=60)
    assert labels.max() == 2
    assert np.array_equal(labels > 0, mask)
    assert labels[15, 15, 14] != labels[15, 15, 28]
    one = balls((30, 30, 50), [(120, 120, 110)], [75], ISOTROPIC)
    assert watershed(one, ISOTROPIC, None, min_distance_nm=60).max() == 1


def test_distances_are_physical_where_voxels_are_anisotropic() -> None:
    voxel = (4.0, 16.0, 16.0)
    centres, radii = [(250, 250, 200), (250, 250, 350)], [90, 90]
    mask = balls((125, 32, 36), centres, radii, voxel)
    labels = watershed(mask, voxel, None, min_distance_nm=80)
    assert labels.max() == 2
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.min() / sizes.max() > 0.9  # cut at the neck, halfway


def test_seeds_of_another_class_decide_the_number_of_objects() -> None:
    mask = np.ones((10, 10, 40), bool)
    seeds = np.zeros_like(mask)
    seeds[5, 5, 5] = seeds[5, 5, 20] = seeds[5, 5, 35] = True
    padded, inner = np.zeros((12, 12, 42), bool), np.zeros((12, 12, 42), bool)
    padded[1:-1, 1:-1, 1:-1], inner[1:-1, 1:-1, 1:-1] = mask, seeds
    assert watershed(padded, ISOTROPIC, inner, min_distance_nm=1000).max() == 3
    assert watershed(padded, ISOTROPIC, np.zeros_like(inner), min_distance_nm=8).max() == 1


def test_a_mask_that_fills_the_crop_is_one_object() -> None:
    assert watershed(np.ones((9, 9, 9), bool), ISOTROPIC, None, min_distance_nm=16).max() == 1


@settings(max_examples=12)
@given(st.integers(0, 10**6))
def test_on_one_component_it_is_the_guides_watershed(seed: int) -> None:
    mask = blobs(seed, (40, 40, 44))
    mask = cc3d.largest_k(mask, k=1, connectivity=26) > 0
    mask[[0, -1]] = mask[:, [0, -1]] = mask[:, :, [0, -1]] = False  # the guide finds no peak near the border
    mask = cc3d.largest_k(mask, k=1, connectivity=6) > 0
    distance = distance_transform_edt(mask).astype(np.float32)
    peaks = peak_local_max(distance, min_distance=4, labels=mask, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    expected = skimage_watershed(-distance, markers, mask=mask)
    got = watershed(mask, (1.0, 1.0, 1.0), None, min_distance_voxels=4)
    assert got.max() == expected.max()
    assert same_up_to_ids(got, expected)


def test_keep_ids_splits_touching_objects_and_hands_unlabelled_voxels_to_a_neighbour() -> None:
    component = np.zeros((3, 3, 8), bool)
    component[1, 1, 1:7] = True
    ids = np.zeros(component.shape, np.uint32)
    ids[1, 1, 1:3], ids[1, 1, 5:7] = 300, 70000
    labels = keep_ids(component, ISOTROPIC, ids)
    assert np.array_equal(labels > 0, component)
    assert labels[1, 1, 1] == labels[1, 1, 3] != labels[1, 1, 4] == labels[1, 1, 6]
    full = keep_ids(np.ones((1, 1, 4), bool), ISOTROPIC, np.array([[[7, 7, 9, 9]]]))
    assert full.ravel().tolist() == [1, 1, 2, 2]


def exactly_and_quickly(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A component of merged balls, its objects, and those that a large component would get."""
    rng = np.random.default_rng(seed)
    mask = balls((64, 64, 64), rng.uniform(96, 416, (9, 3)).tolist(), rng.uniform(56, 88, 9).tolist(), ISOTROPIC)
    mask = cc3d.largest_k(mask, k=1, connectivity=6) > 0
    exact = watershed(mask, ISOTROPIC, None, min_distance_voxels=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flooding, "_LARGE_VOXELS", 0)
        return mask, exact, watershed(mask, ISOTROPIC, None, min_distance_voxels=5)


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_a_large_component_has_as_many_objects(seed: int) -> None:
    mask, exact, quick = exactly_and_quickly(seed)
    assert np.array_equal(quick > 0, mask)
    assert exact.max() == quick.max()


def test_few_voxels_of_a_large_component_fall_to_a_neighbour_by_ties() -> None:
    """Over fixed scenes: equal heights may lie along a whole border, so a single scene may differ more."""
    alike = total = 0
    for seed in range(8):
        mask, exact, quick = exactly_and_quickly(seed)
        pairs = np.unique(np.stack([exact[mask], quick[mask]]), axis=1, return_counts=True)[1]
        alike, total = alike + np.sort(pairs)[-int(exact.max()) :].sum(), total + mask.sum()
    assert alike > 0.97 * total
