"""Components split into objects slab by slab, against each component alone."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ensemble.core.box import Box, zyx
from ensemble.core.box_array import MemoryArray
from ensemble.core.grid import Grid
from ensemble.methods.components import Components, KeptObjects
from ensemble.methods.method_table import Step
from ensemble.methods.splitting import Split, SplitInput
from ensemble.methods.steps import METHODS, drop_small, watershed
from tests.support.blobs import ISOTROPIC, balls, blobs, same_up_to_ids, whole


def test_a_small_object_beside_a_large_one_keeps_its_seed() -> None:
    large = balls((60, 60, 100), [(240, 240, 240)], [180], ISOTROPIC)
    small = balls((60, 60, 100), [(240, 240, 470)], [40], ISOTROPIC)
    grid = Grid(large.shape, ISOTROPIC, (0, 0, 0))
    mask = large | small
    labels = split(mask, grid, {"min_distance_nm": 200.0})
    assert len(np.unique(labels[small])) == 1
    assert labels[large & (labels > 0)].max() != labels[small].max()


@settings(max_examples=8)
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
        pick = None if seeds is None else lambda block, nuclei=nuclei: nuclei[block.slices]
        lines: list[str] = []
        results = []
        for memory_bytes in (2 << 30, 10 << 20):
            cut = Split.of(
                split_input(mask, grid, step, pick, workers),
                workers=workers,
                say=lines.append,
                memory_bytes=memory_bytes,
            )
            labels = whole(cut, grid)
            assert np.array_equal(labels > 0, mask)
            assert np.array_equal(np.bincount(labels.ravel())[1:], cut.objects.size_voxels)
            for k, box in enumerate(ndimage.find_objects(labels.astype(np.int32))):
                own = Box(zyx(s.start for s in box), zyx(s.stop for s in box))
                assert own.within(cut.objects.box(k))
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
    return Split.of(split_input(mask, grid, step))


def split_input(mask: np.ndarray, grid: Grid, step: Step, seeds=None, workers: int = 1) -> SplitInput:
    def read(block: Box) -> np.ndarray:
        return mask[block.slices]

    components = Components.of(grid, read, workers=workers)
    return SplitInput(components, grid, step, read, MemoryArray.zeros(mask.shape, np.uint32), seeds)


def split(mask: np.ndarray, grid: Grid, parameters: dict) -> np.ndarray:
    return whole(split_objects(mask, grid, parameters), grid)
