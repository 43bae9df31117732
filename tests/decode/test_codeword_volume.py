"""A crop as one volume of codeword numbers, against look-ups by numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.box import Box, zyx
from ensemble.core.box_array import MemoryArray
from ensemble.core.codebook import codebook_of
from ensemble.decode.codeword_volume import CodewordVolume, words_in

BOOK = codebook_of(("cell", "nuc", "mito", "mito_mem", "ecs"))
SHAPE = (70, 20, 140)


@given(st.integers(0, 2**32 - 1), st.integers(1, len(BOOK.words)))
def test_every_classs_mask_is_a_look_up_in_the_volume(seed, occurring) -> None:
    random = np.random.default_rng(seed)
    codes = random.choice(random.permutation(len(BOOK.words))[:occurring], SHAPE).astype(np.uint8)
    codes[:64, :, :128] = 0  # a chunk without anything
    words = CodewordVolume(BOOK, lambda lost: MemoryArray(codes), SHAPE)
    for block in words.blocks():
        words.now_hold(block, words_in(codes[block.slices]))
    part = Box((50, 0, 100), (70, 20, 140))
    for name in BOOK.classes:
        expected = np.isin(codes, [number for number, word in enumerate(BOOK.words) if name in word])
        assert np.array_equal(words.mask(name, part), expected[part.slices])
        chunks = [expected[block.slices].any() for block in words.blocks()]
        assert words.occupied(name).ravel().tolist() == chunks


def test_chunks_are_found_by_the_boxes_that_reach_into_them() -> None:
    words = CodewordVolume(BOOK, lambda lost: MemoryArray.zeros(SHAPE, np.uint8), SHAPE)
    assert words.chunk == (64, 20, 128)
    first, *_, last = words.blocks()
    assert words.blocks_touching(np.array([[[0, 0, 0], [64, 20, 128]]])) == [first]
    assert words.blocks_touching(np.array([[[64, 19, 139], [70, 20, 140]]])) == [last]
    words.now_hold(last, [0, 3])
    words.now_hold(last, [2])
    assert words.words_of(last).tolist() == [2]


@given(st.integers(0, 2**32 - 1))
def test_what_is_read_is_what_each_chunk_lost_last_and_what_was_sent_before_reads_as_before(seed) -> None:
    random = np.random.default_rng(seed)
    layers = {name: MemoryArray(random.integers(0, 9, SHAPE).astype(np.uint8)) for name in ("", "mito", "nuc")}
    volume, expected = CodewordVolume(BOOK, layers.__getitem__, SHAPE), layers[""].values.copy()
    for name in ("mito", "nuc"):
        before, as_before = CodewordVolume(BOOK, layers.__getitem__, SHAPE, volume.layers), expected.copy()
        lost = [block for block in volume.blocks() if random.random() < 0.5]
        volume.lose(name, lost)
        for block in lost:
            expected[block.slices] = layers[name].values[block.slices]
        start, stop = np.sort([random.integers(0, SHAPE), random.integers(1, np.array(SHAPE) + 1)], axis=0)
        part = Box(zyx(start), zyx(np.maximum(stop, start + 1)))
        assert np.array_equal(volume.codes(part), expected[part.slices])
        assert np.array_equal(before.codes(part), as_before[part.slices])


@pytest.mark.parametrize("codes", [[0, 0], [3, 0, 3, 1]])
def test_the_words_that_occur(codes) -> None:
    assert words_in(np.array(codes, np.uint8)) == sorted(set(codes))
