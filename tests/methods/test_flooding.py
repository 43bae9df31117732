"""Distances, peaks and basins, against SciPy, loops over voxels and scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from ensemble.methods.flooding import basins, distance_nm, peaks_of
from tests.support.blobs import balls, same_up_to_ids

VOXEL_NM = (3.0, 8.0, 8.0)


@pytest.mark.parametrize("shape", [(9, 10, 11), (40, 41, 42), (110, 100, 100)], ids=["tiny", "small", "large"])
def test_distances_are_those_of_scipy_whichever_library_measures_them(shape):
    mask = np.random.default_rng(0).random(shape) < 0.98
    mask[0, 0, 0] = False
    expected = ndimage.distance_transform_edt(mask, sampling=VOXEL_NM)
    assert np.allclose(distance_nm(mask, VOXEL_NM), expected, rtol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.tuples(*[st.sampled_from([1.0, 1.5, 2.0, 3.2])] * 3))
def test_peaks_are_the_highest_within_the_radius_none_nearer_to_another(seed, radius):
    mask = np.random.default_rng(seed).random((12, 11, 13)) < 0.9
    distance = distance_nm(mask, VOXEL_NM)
    peaks = peaks_of(distance, mask, list(radius))
    reach = [int(r) for r in radius]
    for z, y, x in peaks:
        around = distance[
            max(z - reach[0], 0) : z + reach[0] + 1,
            max(y - reach[1], 0) : y + reach[1] + 1,
            max(x - reach[2], 0) : x + reach[2] + 1,
        ]
        assert mask[z, y, x]
        assert distance[z, y, x] == around.max()
    apart = np.abs(peaks[:, None] - peaks) / radius
    assert (np.where(np.eye(len(peaks), dtype=bool), 1, apart.max(axis=2)) >= 1 - 1e-9).all()
    heights = distance[tuple(peaks.T)]
    assert (np.diff(heights) <= 0).all()
    # every local maximum that is no peak is near a peak at least as high
    maxima = np.argwhere(mask & (distance == ndimage.maximum_filter(distance, [2 * r + 1 for r in reach])))
    near = (np.abs(maxima[:, None] - peaks) / radius).max(axis=2) < 1
    higher = heights[None] >= distance[tuple(maxima.T)][:, None]
    at_peak = (maxima[:, None] == peaks).all(axis=2)
    assert (at_peak | (near & higher)).any(axis=1).all()


def test_basins_are_those_of_scikit_image_and_every_voxel_of_the_component_is_in_one():
    mask = balls((30, 30, 50), [(120, 120, 110), (120, 120, 230)], [75, 75], (8.0, 8.0, 8.0))
    distance = distance_nm(mask, (8.0, 8.0, 8.0))
    markers = np.zeros(mask.shape, np.int32)
    markers[15, 15, 14], markers[15, 15, 28] = 1, 2
    expected = watershed(-distance, markers, mask=mask)
    labels = basins(distance_nm(mask, (8.0, 8.0, 8.0)), markers, mask)
    assert labels.dtype == np.uint32
    assert np.array_equal(labels > 0, mask)
    assert same_up_to_ids(labels, expected)


def test_voxels_joined_by_a_corner_alone_belong_to_the_basin_beside_them():
    mask = np.zeros((4, 4, 8), bool)
    mask[:2, :2, :4] = True
    mask[2, 2, 4] = mask[3, 3, 5] = True  # 26-connected to the rest, which flooding of faces does not reach
    markers = np.zeros(mask.shape, np.int32)
    markers[0, 0, 0] = 1
    labels = basins(distance_nm(mask, (1.0, 1.0, 1.0)), markers, mask)
    assert same_up_to_ids(labels, mask)
