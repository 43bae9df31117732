"""Components by slabs and blocks, against those of the whole volume."""

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.tiling import CHUNK, blocks, slabs
from ensemble.methods.components import Components
from tests.support.blobs import ISOTROPIC, blobs, same_up_to_ids, whole


@pytest.mark.parametrize("connectivity", [6, 26])
@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_components_by_slabs_are_those_of_the_whole(connectivity: int, seed: int) -> None:
    mask = blobs(seed)
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    probability = np.random.default_rng(seed).random(mask.shape, dtype=np.float32)
    found = Components.of(
        grid,
        lambda block: mask[block.slices],
        connectivity=connectivity,
        probability=lambda block: probability[block.slices],
        workers=1 + seed % 2,
    )
    got = whole(found, grid)
    assert same_up_to_ids(got, cc3d.connected_components(mask, connectivity=connectivity))
    for k, box in enumerate(ndimage.find_objects(got.astype(np.int32))):
        own = got[box] == k + 1
        assert found.objects.size_voxels[k] == own.sum()
        assert found.objects.box(k).slices == box
        assert found.objects.peak_probability[k] == probability[box][own].max()
        touches = any(s.start == 0 or s.stop == n for s, n in zip(box, mask.shape, strict=True))
        assert found.objects.touches_border[k] == touches


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_components_of_the_blocks_that_are_occupied_are_those_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((130, 260, 140), bool)
    for corner in rng.integers(0, [100, 240, 120], (12, 3)):
        mask[tuple(slice(c, c + n) for c, n in zip(corner, rng.integers(1, 40, 3), strict=True))] = True
    grid = Grid(mask.shape, ISOTROPIC, (0, 0, 0))
    occupied = np.zeros([-(-n // c) for n, c in zip(mask.shape, CHUNK, strict=True)], bool)
    for block in blocks(mask.shape):
        occupied[block.to_chunks(CHUNK).start] = mask[block.slices].any()
    read: list[int] = []

    def reader(block: Box) -> np.ndarray:
        read.append(block.size)
        return mask[block.slices]

    found = Components.of(grid, reader, occupied=occupied, workers=2)
    first_pass = sum(read)
    everything = Components.of(grid, lambda block: mask[block.slices])
    got = whole(found, grid)
    assert np.array_equal(got, whole(everything, grid))
    assert first_pass <= 1.1 * mask.size
    for slab in slabs(grid.shape):
        box = found.touched(slab)
        outside = got[slab.slices].copy()
        if box is not None:
            outside[box.relative_to(slab).slices] = 0
        assert not outside.any()


def test_no_mask_has_no_components() -> None:
    grid = Grid((130, 5, 5), ISOTROPIC, (0, 0, 0))
    found = Components.of(grid, lambda block: np.zeros(block.shape, bool))
    assert len(found.objects) == 0
    assert not whole(found, grid).any()
