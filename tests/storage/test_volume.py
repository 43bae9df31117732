"""Arrays on disk with their grids: read as they were written, and damage told by chunk."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

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


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("chunks", [0, 16, 16], "cannot be held|not readable as Zarr"),
        ("chunks", [4096, 4096, 4096], "its chunks of .* cannot be held; write it in chunks of up to 1 GiB"),
        ("chunks", [16, 16], "not readable as Zarr|not those of Zarr"),
        ("shape", [20, 30, 0], "nothing in it"),
        ("shape", [20, 30, -4], "."),
        ("shape", [20, 30], "2 axes where three are expected|not readable"),
        ("dtype", "<M8[ns]", "."),
        ("dtype", 3, "."),
        ("compressor", {"id": "pickle"}, "."),
        ("fill_value", "z", "."),
        ("zarr_format", 7, "."),
    ],
)
def test_an_array_that_cannot_be_is_told_in_one_line(tmp_path, key, value, told):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    metadata = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps({**metadata, key: value}))
    with pytest.raises(VolumeError, match=told) as caught:
        open_volume(place).read(GRID.box)
    assert str(caught.value).startswith(f"{place}: ")
    assert "\n" not in str(caught.value)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "shuffle", "elementsize": 1}, {"id": "pickle"}]},
        {"filters": [{"id": "json2"}], "compressor": {"id": "pickle"}},
    ],
)
@pytest.mark.parametrize("dtype", ["|u1", "|O"])
def test_nothing_in_a_chunk_is_ever_run(tmp_path, codecs, dtype):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    metadata = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps({**metadata, "filters": None, "dtype": dtype, **codecs}))
    for chunk in place.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    with pytest.raises(VolumeError):
        open_volume(place).read(GRID.box)
    assert not (tmp_path / "run").exists()


def test_more_chunks_than_can_be_looked_for_are_told(tmp_path):
    volume = open_volume(write_array(tmp_path / "a", noise(GRID.shape), GRID))
    endless = replace(volume, grid=replace(GRID, shape=(10**6, 10**6, 10**6)))
    for ask in (lambda: endless.identity(endless.grid.box), lambda: endless.present(endless.grid.box)):
        with pytest.raises(VolumeError, match=r"chunks of \[16, 16, 16\] voxels are to be looked for"):
            ask()
