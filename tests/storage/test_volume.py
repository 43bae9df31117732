"""Arrays on disk with their grids: read as they were written, and damage told by chunk."""

from dataclasses import replace

import numcodecs
import numpy as np
import pytest
import zarr

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.storage.opening import open_volume
from ensemble.storage.volume import Volume
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise, write_array

GRID = Grid((20, 30, 40), (8, 4, 4), (100, 50, 3))


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


def test_more_chunks_than_can_be_looked_for_are_told(tmp_path):
    volume = open_volume(write_array(tmp_path / "a", noise(GRID.shape), GRID))
    endless = replace(volume, grid=replace(GRID, shape=(10**6, 10**6, 10**6)))
    for ask in (lambda: endless.identity(endless.grid.box), lambda: endless.present(endless.grid.box)):
        with pytest.raises(VolumeError, match=r"chunks of \[16, 16, 16\] voxels are to be looked for"):
            ask()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_chunks_are_found_whatever_the_order_of_axes(tmp_path, order):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    (place / "1.0.2").unlink()
    array = open_volume(place).array
    turned = Volume(array, replace(GRID, shape=tuple(GRID.shape[axis] for axis in order)), str(place), order)
    present = turned.present(turned.grid.box.to_chunks(turned.chunks))
    assert present.shape == tuple((2, 2, 3)[axis] for axis in order)
    assert np.argwhere(~present).tolist() == [[(1, 0, 2)[axis] for axis in order]]
