"""Post-processing: small cases by hand, whole volumes against the libraries, slabs against the whole."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.ndimage import distance_transform_edt
from skimage.feature import peak_local_max
from skimage.segmentation import watershed as skimage_watershed

from ensemble.core.grid import Grid
from ensemble.core.tiling import CHUNK, blocks, slabs
from ensemble.methods.components import Components, KeptObjects
from ensemble.methods.method_table import Stage, Step
from ensemble.methods.objects import ObjectTable
from ensemble.methods.splitting import Split
from ensemble.methods.steps import (
    METHODS,
    closing,
    drop_at_border,
    drop_small,
    fill_holes,
    hysteresis,
    keep_ids,
    keep_largest,
    opening,
    smooth,
    watershed,
)

ISOTROPIC = (8.0, 8.0, 8.0)


def balls(shape: tuple, centres_nm: list, radii_nm: list, voxel_size_nm: tuple) -> np.ndarray:
    z, y, x = (i * v for i, v in zip(np.indices(shape), voxel_size_nm, strict=True))
    out = np.zeros(shape, bool)
    for (a, b, c), radius in zip(centres_nm, radii_nm, strict=True):
        out |= (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= radius**2
    return out


def blobs(seed: int, shape: tuple = (150, 40, 44)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2.5)
    return noise > np.quantile(noise, 0.72)


def table(sizes: list[int], peaks: list[float] | None = None, border: list[bool] | None = None) -> ObjectTable:
    n = len(sizes)
    box = np.zeros((n, 3), np.int64)
    return ObjectTable(
        np.array(sizes),
        box,
        box + 1,
        np.array(border or [False] * n),
        np.array(peaks or [0.0] * n, np.float32),
        voxel_volume_nm3=8.0,
    )


def same_up_to_ids(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


# objects


def test_drop_small_keeps_objects_of_exactly_the_minimum() -> None:
    assert drop_small(table([9, 10, 11]), min_size_voxels=10).tolist() == [False, True, True]
    assert drop_small(table([9, 10, 11]), min_size_nm3=80).tolist() == [False, True, True]


def test_keep_largest_takes_the_first_of_equals() -> None:
    assert keep_largest(table([5, 7, 7, 1]), count=2).tolist() == [False, True, True, False]
    assert keep_largest(table([7, 7]), count=1).tolist() == [True, False]


def test_hysteresis_keeps_what_exceeds_the_high_threshold_somewhere() -> None:
    assert hysteresis(table([5, 5], peaks=[0.8, 0.9]), high=0.8).tolist() == [False, True]


def test_drop_at_border() -> None:
    assert drop_at_border(table([5, 5], border=[True, False])).tolist() == [False, True]


def test_fill_holes_by_volume() -> None:
    assert fill_holes(table([10, 11]), max_size_nm3=80).tolist() == [True, False]
    assert fill_holes(table([10, 10**9])).tolist() == [True, True]


# probabilities


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
    halo = int(np.ceil(step.trait("reach_nm") / 6))
    whole = step(p, voxel)
    part = step(p[:, :, 30 - halo : 34 + halo], voxel)
    assert np.allclose(part[:, :, halo : halo + 4], whole[:, :, 30:34], atol=1e-6)


# watershed


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


def test_a_small_object_beside_a_large_one_keeps_its_seed() -> None:
    large = balls((60, 60, 100), [(240, 240, 240)], [180], ISOTROPIC)
    small = balls((60, 60, 100), [(240, 240, 470)], [40], ISOTROPIC)
    grid = Grid(large.shape, ISOTROPIC, (0, 0, 0))
    mask = large | small
    labels = split(mask, grid, {"min_distance_nm": 200.0})
    assert len(np.unique(labels[small])) == 1
    assert labels[large & (labels > 0)].max() != labels[small].max()


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


@settings(max_examples=12, deadline=None)
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
        patch.setattr("ensemble.postprocess._LARGE_VOXELS", 0)
        return mask, exact, watershed(mask, ISOTROPIC, None, min_distance_voxels=5)


@settings(max_examples=8, deadline=None)
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


# slab by slab


@pytest.mark.parametrize("connectivity", [6, 26])
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_components_by_slabs_are_those_of_the_whole(connectivity: int, seed: int) -> None:
    mask = blobs(seed)
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    probability = np.random.default_rng(seed).random(mask.shape, dtype=np.float32)
    found = Components(
        grid,
        lambda block: mask[block],
        connectivity=connectivity,
        probability=lambda block: probability[block],
        workers=1 + seed % 2,
    )
    got = whole(found, grid)
    assert same_up_to_ids(got, cc3d.connected_components(mask, connectivity=connectivity))
    for k, box in enumerate(ndimage.find_objects(got.astype(np.int32))):
        own = got == k + 1
        assert found.objects.size_voxels[k] == own.sum()
        assert [slice(a, b) for a, b in zip(found.objects.start[k], found.objects.stop[k], strict=True)] == list(box)
        assert found.objects.peak_probability[k] == probability[own].max()
        touches = any(s.start == 0 or s.stop == n for s, n in zip(box, mask.shape, strict=True))
        assert found.objects.touches_border[k] == touches


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_components_of_the_blocks_that_are_occupied_are_those_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((130, 300, 270), bool)
    for corner in rng.integers(0, [100, 280, 250], (12, 3)):
        mask[tuple(slice(c, c + n) for c, n in zip(corner, rng.integers(1, 40, 3), strict=True))] = True
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    occupied = np.zeros([-(-n // c) for n, c in zip(mask.shape, CHUNK, strict=True)], bool)
    for block in blocks(mask.shape):
        occupied[tuple(s.start // c for s, c in zip(block, CHUNK, strict=True))] = mask[block].any()
    read: list[int] = []

    def reader(block) -> np.ndarray:
        read.append(mask[block].size)
        return mask[block]

    found = Components(grid, reader, occupied=occupied, workers=2)
    first_pass = sum(read)
    everything = Components(grid, lambda block: mask[block])
    got = whole(found, grid)
    assert np.array_equal(got, whole(everything, grid))
    assert first_pass <= 1.1 * mask.size
    for start, stop in slabs(grid.shape[0]):
        box = found.touched(start, stop)
        outside = got[start:stop].copy()
        if box is not None:
            outside[:, box[1], box[2]] = 0
        assert not outside.any()


def test_no_mask_has_no_components() -> None:
    grid = Grid((130, 5, 5), ISOTROPIC, (0, 0, 0))
    found = Components(grid, lambda block: np.zeros((block[0].stop - block[0].start, 5, 5), bool))
    assert len(found.objects) == 0
    assert not whole(found, grid).any()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_watershed_by_components_and_slabs_is_the_watershed_of_each_component(seed: int) -> None:
    mask = blobs(seed)
    grid = Grid(mask.shape, (6.0, 8.0, 8.0), (0, 0, 0))
    got = split(mask, grid, {"min_distance_nm": 30.0})
    assert np.array_equal(got > 0, mask)
    components = cc3d.connected_components(mask, connectivity=26)
    for k, box in enumerate(ndimage.find_objects(components.astype(np.int32))):
        around = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        alone = components[around] == k + 1
        expected = watershed(alone, grid.voxel_size_nm, None, min_distance_nm=30.0)
        assert same_up_to_ids(np.where(alone, got[around], 0), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_component_too_large_for_the_memory_is_cut_on_larger_voxels_and_told(workers: int) -> None:
    centres = [(300, 300, 300), (300, 300, 620), (300, 620, 460), (600, 460, 460)]
    mask = balls((120, 110, 110), centres, [180] * 4, ISOTROPIC)
    mask[2:5, 2:5, 2:5] = True  # a small one elsewhere
    mask[100:104, 3:8, 60:90] = True
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    method = METHODS.by_name["watershed"]
    for said, seeds in (
        ({"min_distance_nm": 100.0}, None),
        ({"min_distance_voxels": 12}, None),
        ({"min_distance_nm": 9.0, "seeds_from": "nuc"}, 1),
    ):
        step = Step(method, method.parameters.model_validate(said).model_dump())
        nuclei = balls(mask.shape, centres, [60] * 4, ISOTROPIC)
        pick = None if seeds is None else lambda block, nuclei=nuclei: nuclei[block]
        lines: list[str] = []
        results = []
        for memory_bytes in (2 << 30, 10 << 20):
            components = Components(grid, lambda block: mask[block], workers=workers)
            cut = Split(
                components,
                grid,
                step,
                lambda block: mask[block],
                np.zeros(mask.shape, np.uint32),
                pick,
                workers=workers,
                say=lines.append,
                memory_bytes=memory_bytes,
            )
            labels = whole(cut, grid)
            assert np.array_equal(labels > 0, mask)
            assert np.array_equal(np.bincount(labels.ravel())[1:], cut.objects.size_voxels)
            for k, box in enumerate(ndimage.find_objects(labels.astype(np.int32))):
                assert all(
                    s.start >= a and s.stop <= b
                    for s, a, b in zip(box, cut.objects.start[k], cut.objects.stop[k], strict=True)
                )
            results.append(labels)
        exact, coarse = results
        assert exact.max() == coarse.max() >= 6
        assert len(lines) == 1
        assert "2x larger voxels" in lines[0]
        pairs = np.unique(np.stack([exact[mask], coarse[mask]]), axis=1, return_counts=True)[1]
        assert np.sort(pairs)[-int(exact.max()) :].sum() > 0.97 * mask.sum()


def test_touching_objects_stay_apart_after_the_size_filter() -> None:
    mask = balls((30, 30, 60), [(120, 120, 110), (120, 120, 230), (120, 120, 420)], [75, 75, 20], ISOTROPIC)
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    objects = split_objects(mask, grid, {"min_distance_nm": 60.0})
    kept = KeptObjects(objects, drop_small(objects.objects, min_size_voxels=500))
    labels = whole(kept, grid)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    assert labels[15, 15, 14] != labels[15, 15, 28]
    assert labels[15, 15, 52] == 0


def split_objects(mask: np.ndarray, grid: Grid, parameters: dict) -> Split:
    method = METHODS.by_name["watershed"]
    step = Step(method, method.parameters.model_validate(parameters).model_dump())
    components = Components(grid, lambda block: mask[block])
    return Split(components, grid, step, lambda block: mask[block], np.zeros(mask.shape, np.uint32))


def split(mask: np.ndarray, grid: Grid, parameters: dict) -> np.ndarray:
    return whole(split_objects(mask, grid, parameters), grid)


def whole(labelled, grid: Grid) -> np.ndarray:
    planes = (slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    return np.concatenate([labelled.read((slice(a, b), *planes)) for a, b in slabs(grid.shape[0])])
