"""Blocks of crops are kept, and patches are the same for it."""

import shutil

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.train.block_files import BlockFiles
from ensemble.train.patch_cache import BlockCache, PatchReader
from tests.support.annotated import noise, write_em, write_truth
from tests.support.small_crops import opened, spec_of


def test_a_patch_is_the_same_whether_blocks_are_kept_or_not(tmp_path):
    write_em(tmp_path, noise(80, 24, 24), voxel_nm=6)
    write_truth(tmp_path, "mito", noise(70, 20, 20, seed=2) // 128, voxel_nm=6, origin_nm=(7, 9, 11))
    crop = opened(tmp_path, spec_of(voxel_size_nm=5))
    keeping, forgetting = PatchReader([crop]), PatchReader([crop], budget_bytes=0)
    for start in ((0, 0, 0), (50, 3, 9), (61, 8, 2), (50, 3, 9)):
        where = Box.at(start, (12, 12, 12))
        one, other = keeping.patch(0, where), forgetting.patch(0, where)
        np.testing.assert_array_equal(one.grey, other.grey)
        np.testing.assert_array_equal(one.codes, other.codes)


@pytest.mark.parametrize(("dtype", "shown"), [("u1", "u1"), ("<i2", "f4"), ("f4", "f4")])
def test_bytes_of_the_em_stay_bytes(tmp_path, dtype, shown):
    grey = noise(16, 16, 16).astype(dtype)
    write_em(tmp_path, grey)
    write_truth(tmp_path, "mito", noise(16, 16, 16) // 128)
    patch = PatchReader([opened(tmp_path, spec_of())]).patch(0, Box.at((3, 2, 1), (8, 8, 8)))
    assert patch.grey.dtype == shown
    np.testing.assert_array_equal(patch.grey, grey[3:11, 2:10, 1:9])


def test_the_cache_keeps_what_was_used_last_within_its_budget():
    made = []

    def get(cache: BlockCache, key: str) -> None:
        cache.get(key, lambda: (made.append(key) or np.arange(100, dtype=np.uint8),))

    cache = BlockCache(budget_bytes=250)
    for key in "ab" + "a" + "c" + "a" + "b":
        get(cache, key)
    assert "".join(made) == "abcb"


def test_readers_share_what_one_of_them_has_computed(tmp_path):
    write_em(tmp_path, noise(24, 24, 24))
    write_truth(tmp_path, "mito", noise(24, 24, 24, seed=2) // 128)
    crop = opened(tmp_path, spec_of())
    where = Box.at((3, 4, 5), (12, 12, 12))
    expected = PatchReader([crop]).patch(0, where)
    (tmp_path / "blocks").mkdir()
    PatchReader([crop], files=BlockFiles(tmp_path / "blocks", free_bytes=0)).patch(0, where)
    shutil.rmtree(tmp_path / "fly")
    patch = PatchReader([crop], files=BlockFiles(tmp_path / "blocks")).patch(0, where)
    np.testing.assert_array_equal(patch.grey, expected.grey)
    np.testing.assert_array_equal(patch.codes, expected.codes)
