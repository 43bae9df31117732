"""Blosc chunks whose header lies are refused before anything is decoded, in Zarr v2, v3 and alone."""

import struct
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.grid import Grid
from ensemble.storage.checked_blosc import CheckedBlosc, CheckedBloscCodec
from ensemble.storage.volume import open_volume
from ensemble.support.errors import VolumeError
from tests.support.volumes import write_array

VALUES = np.arange(4096, dtype=np.uint16)
GRID = Grid((16, 16, 16), (8, 8, 8), (4, 4, 4))


@pytest.mark.parametrize("name", ["lz4", "zstd", "blosclz", "zlib", "lz4hc"])
@given(st.data())
def test_what_was_encoded_is_decoded_and_nothing_shorter_or_longer(name: str, data: st.DataObject) -> None:
    codec = numcodecs.get_codec({"id": "blosc", "cname": name})
    assert type(codec).__name__ == CheckedBlosc.__name__  # whatever other tests imported anew
    encoded = codec.encode(VALUES)
    assert np.array_equal(np.frombuffer(codec.decode(encoded), np.uint16), VALUES)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ValueError, match="Blosc"):
        codec.decode(encoded[:cut])
    with pytest.raises(ValueError, match="Blosc"):
        codec.decode(encoded + b"\0")


def test_a_header_that_says_gigabytes_is_refused() -> None:
    encoded = bytearray(CheckedBlosc().encode(VALUES))
    encoded[4:8] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(ValueError, match="more than any chunk"):
        CheckedBlosc().decode(bytes(encoded))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_of_an_array_that_is_cut_short_is_one_line(tmp_path: Path, zarr_format: int) -> None:
    codec = CheckedBloscCodec() if zarr_format == 3 else CheckedBlosc()
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(16, 16, 16), chunks=(16, 16, 16), dtype="u1", zarr_format=zarr_format,
        compressors=codec, attributes={"voxel_size": [8, 8, 8], "translation": [4, 4, 4]}, fill_value=0,
    )  # fmt: skip
    array[...] = np.arange(4096).reshape(16, 16, 16) % 251
    (chunk,) = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and not path.name.startswith((".", "z"))]
    data = chunk.read_bytes()
    assert data[12:16] == struct.pack("<I", len(data))  # it is Blosc
    chunk.write_bytes(data[: len(data) // 2])
    with pytest.raises(VolumeError, match="cut short or damaged"):
        open_volume(tmp_path / "a").read(GRID.box)


def test_what_others_write_is_read_as_ever(tmp_path: Path) -> None:
    write_array(tmp_path / "a", np.full(GRID.shape, 7, np.uint8), GRID)
    assert (open_volume(tmp_path / "a").read(GRID.box) == 7).all()
