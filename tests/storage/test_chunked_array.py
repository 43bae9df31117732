"""Arrays written whole chunks at a time, against numpy and the zarr library; damage is found, never read."""

from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.storage.chunked_array import ChunkedArray, Encoding, scratch_array
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise

SHAPE = (70, 130, 5)
WHOLE = Box.of_shape(SHAPE)
CODEC = numcodecs.Blosc(cname="lz4", clevel=1)
ENCODING = Encoding(CODEC, CODEC.get_config())
UINT8, UINT16 = np.dtype(np.uint8), np.dtype(np.uint16)
BOXES = st.tuples(*(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True).map(sorted) for n in SHAPE)).map(
    lambda bounds: Box(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))
)


@given(st.lists(st.tuples(BOXES, st.integers(0, 3)), max_size=4), BOXES)
def test_boxes_that_are_written_are_read_as_numpy_has_them(tmp_path_factory, written, asked):
    place = tmp_path_factory.mktemp("chunks") / "a"
    array, expected = ChunkedArray.create(place, SHAPE, UINT16, ENCODING), np.zeros(SHAPE, np.uint16)
    for number, (box, value) in enumerate(written, start=1):
        array[box] = expected[box.slices] = value * number
    assert np.array_equal(array[asked], expected[asked.slices])
    assert np.array_equal(ChunkedArray.reopen(place, SHAPE, UINT16, ENCODING)[WHOLE], expected)
    assert np.array_equal(zarr.open_array(place, mode="r")[:], expected)
    chunks = {file.name for file in place.iterdir() if file.name[0] != "."}
    held = {f"{z // 64}.{y // 128}.0" for z, y, _ in np.argwhere(expected)}
    assert chunks == held  # background takes no file, and nothing half-written stays


def test_a_new_array_is_zeros_whatever_was_there(tmp_path):
    first = ChunkedArray.create(tmp_path / "a", SHAPE, UINT8, ENCODING, {"voxel_size": [1, 2, 3]})
    first[WHOLE] = 7
    again = ChunkedArray.create(tmp_path / "a", SHAPE, UINT8, ENCODING)
    assert not again[WHOLE].any()
    assert dict(zarr.open_array(tmp_path / "a", mode="r").attrs) == {}


def test_an_array_of_another_shape_type_or_codec_is_not_reopened(tmp_path):
    ChunkedArray.create(tmp_path / "a", SHAPE, UINT8, ENCODING)
    zstd = numcodecs.Blosc(cname="zstd", clevel=1)
    others = (
        (SHAPE[::-1], UINT8, ENCODING),
        (SHAPE, UINT16, ENCODING),
        (SHAPE, UINT8, Encoding(zstd, zstd.get_config())),
    )
    for shape, dtype, encoding in others:
        with pytest.raises(VolumeError, match=r"its \.zarray is not as it was written"):
            ChunkedArray.reopen(tmp_path / "a", shape, dtype, encoding)
    with pytest.raises(VolumeError, match=r"its \.zarray is not as it was written"):
        ChunkedArray.reopen(tmp_path / "absent", SHAPE, UINT8, ENCODING)


TARGET = Target("1", "d", Grid(SHAPE, (8, 8, 8), (4, 4, 4)), ("mito",))


def _flipped(file: Path, bit: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)


def test_a_scratch_array_is_found_again_as_it_was_left(tmp_path):
    values = noise(SHAPE)
    scratch_array(tmp_path, TARGET, "mito ids", UINT8)[WHOLE] = values
    assert np.array_equal(scratch_array(tmp_path, TARGET, "mito ids", UINT8)[WHOLE], values)
    assert not scratch_array(tmp_path, TARGET, "new", UINT8)[WHOLE].any()


def test_any_flipped_bit_of_a_scratch_chunk_is_found_and_never_read(tmp_path):
    values = np.zeros(SHAPE, np.uint8)
    values[:64, :128, 2] = noise((64, 128, 1))[..., 0] % 3
    array = scratch_array(tmp_path, TARGET, "mito", UINT8)
    array[WHOLE] = values
    chunk = array.place / "0.0.0"
    whole = chunk.read_bytes()
    head, body = range(8 * 24), np.random.default_rng(0).integers(8 * 24, 8 * len(whole), 200)
    for bit in (*head, *(int(bit) for bit in body)):
        _flipped(chunk, bit)
        with pytest.raises(VolumeError, match=r"mito: chunk 0\.0\.0 is damaged"):
            array[WHOLE]
        chunk.write_bytes(whole)
    for length in (0, 1, 4, 10, len(whole) // 2, len(whole) - 1):
        chunk.write_bytes(whole[:length])
        with pytest.raises(VolumeError, match=r"mito: chunk 0\.0\.0 is damaged"):
            array[WHOLE]
    chunk.write_bytes(whole)
    assert np.array_equal(array[WHOLE], values)


def test_a_flipped_bit_in_any_byte_of_a_scratch_arrays_metadata_is_found(tmp_path):
    metadata = scratch_array(tmp_path, TARGET, "mito", UINT8).place / ".zarray"
    whole = metadata.read_bytes()
    for place in range(len(whole)):
        _flipped(metadata, 8 * place + place % 8)
        with pytest.raises(VolumeError, match=r"its \.zarray is not as it was written"):
            scratch_array(tmp_path, TARGET, "mito", UINT8)
        metadata.write_bytes(whole)
