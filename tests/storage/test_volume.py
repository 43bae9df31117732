"""Arrays on disk with their grids: read as they were written, and damage told by chunk."""

import numcodecs
import numpy as np
import pytest
import zarr

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.volume import open_volume
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise, write_array, write_em

GRID = Grid((20, 30, 40), (8, 4, 4), (100, 50, 3))


def test_a_plain_array_lies_where_its_attributes_say_and_reads_as_it_was_written(tmp_path):
    values = noise(GRID.shape)
    volume = open_volume(write_array(tmp_path / "a", values, GRID))
    assert volume.grid == GRID
    assert volume.chunks == (16, 16, 16)
    assert np.array_equal(volume.read(GRID.box), values)
    part = Box((3, 14, 39), (5, 18, 40))
    assert np.array_equal(volume.read(part), values[3:5, 14:18, 39:40])


def test_a_multiscale_group_is_its_finest_level(tmp_path):
    values, coarse = noise(GRID.shape), GRID.covering((16, 8, 8))
    place = write_em(tmp_path, "d", [(values, GRID), (noise(coarse.shape), coarse)])
    volume = open_volume(place)
    assert volume.grid == GRID
    assert np.array_equal(volume.read(GRID.box), values)


def test_only_the_damaged_chunk_is_named_and_the_others_still_read(tmp_path):
    values = noise(GRID.shape)
    place = write_array(tmp_path / "a", values, GRID)
    (place / "1.0.2").write_bytes(b"damaged")
    volume = open_volume(place)
    with pytest.raises(VolumeError, match=r"a: chunk 1\.0\.2 cannot be read"):
        volume.read(GRID.box)
    assert np.array_equal(volume.read(Box.of_shape((16, 30, 40))), values[:16])


CODECS = [
    numcodecs.Blosc("lz4"),
    numcodecs.Zstd(),
    numcodecs.GZip(),
    numcodecs.Zlib(),
    numcodecs.BZ2(),
    numcodecs.LZMA(),
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.codec_id)
def test_whatever_a_codec_raises_for_a_damaged_chunk_it_is_named(tmp_path, codec):
    place = tmp_path / "a"
    attributes = {"voxel_size": list(GRID.voxel_size_nm), "translation": list(GRID.origin_nm)}
    made = {"zarr_format": 2, "compressors": codec, "fill_value": 0, "attributes": attributes}
    zarr.create_array(str(place), data=noise(GRID.shape) % 3, chunks=GRID.shape, **made)
    whole, volume = (place / "0.0.0").read_bytes(), open_volume(place)
    flips = [(at, 1 << bit) for at in (*range(16), len(whole) // 2, len(whole) - 1) for bit in (0, 3, 7)]
    damaged = [whole[:0], whole[:3], whole[: len(whole) // 2], whole[:-1]]
    damaged += [whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :] for at, mask in flips]
    told = 0
    for content in damaged:
        (place / "0.0.0").write_bytes(content)
        try:
            volume.read(GRID.box)
        except VolumeError as error:
            told += str(error).startswith(f"{place}: chunk 0.0.0 cannot be read (")
    assert told >= 8  # a few bits mean nothing, and not every codec has a checksum


def test_an_identity_changes_with_the_chunks_under_its_block_and_with_no_other(tmp_path):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    volume, first, last = open_volume(place), Box.of_shape((16, 16, 16)), Box((16, 16, 32), GRID.shape)
    before = volume.identity(first), volume.identity(last)
    (place / "1.1.2").write_bytes(b"something of another length")
    after = volume.identity(first), volume.identity(last)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_chunk_of_background_was_never_written(tmp_path):
    values = noise(GRID.shape)
    values[:16, :16, :16] = 0
    volume = open_volume(write_array(tmp_path / "a", values, GRID))
    present = volume.present(Box.of_shape((2, 2, 3)))
    assert present.shape == (2, 2, 3)
    assert np.argwhere(~present).tolist() == [[0, 0, 0]]
    assert volume.present(Box((1, 1, 2), (2, 2, 3))).tolist() == [[[True]]]
