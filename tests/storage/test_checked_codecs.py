"""Chunks whose headers lie, and bombs, are refused before they are decoded, in Zarr v2, v3 and alone."""

import bz2
import gzip
import lzma
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.grid import Grid
from ensemble.storage.checked_codecs import CheckedBlosc
from ensemble.storage.nodes import open_node
from ensemble.storage.opening import open_volume
from ensemble.support.errors import VolumeError
from tests.support.volumes import write_array

VALUES = np.arange(4096, dtype=np.uint16)
GRID = Grid((16, 16, 16), (8, 8, 8), (4, 4, 4))


@pytest.mark.parametrize("name", ["lz4", "zstd", "blosclz", "zlib", "lz4hc"])
@given(st.data())
def test_what_was_encoded_is_decoded_and_nothing_shorter_or_longer(name: str, data: st.DataObject) -> None:
    codec = numcodecs.get_codec({"id": "blosc", "cname": name})
    names = [kind.__name__ for kind in type(codec).__mro__]
    assert CheckedBlosc.__name__ in names  # whatever other tests imported anew
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
    codec = zarr.codecs.BloscCodec() if zarr_format == 3 else CheckedBlosc()
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


KINDS = ["blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"]
OF_V3 = {"blosc": zarr.codecs.BloscCodec, "gzip": zarr.codecs.GzipCodec, "zstd": zarr.codecs.ZstdCodec}


def array_of(folder: Path, zarr_format: int, kind: str, filters: object = "auto") -> Path:
    """An array of one chunk, which is written with a codec; the chunk."""
    if zarr_format == 2:
        codec = numcodecs.get_codec({"id": kind})
    elif kind in OF_V3:
        codec = OF_V3[kind]()
    else:
        codec = zarr.registry.get_codec_class(f"numcodecs.{kind}")()
    array = zarr.create_array(
        str(folder), shape=GRID.shape, chunks=GRID.shape, dtype="u1", zarr_format=zarr_format, fill_value=0,
        compressors=codec, filters=filters, attributes={"voxel_size": [8, 8, 8], "translation": [4, 4, 4]},
    )  # fmt: skip
    array[...] = np.arange(4096).reshape(GRID.shape) % 251
    (chunk,) = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "z"))]
    return chunk


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_codec_reads_what_it_wrote(tmp_path: Path, zarr_format: int, kind: str) -> None:
    array_of(tmp_path / "a", zarr_format, kind)
    assert (open_volume(tmp_path / "a").read(GRID.box) == np.arange(4096).reshape(GRID.shape) % 251).all()


def test_filters_may_widen_what_is_compressed(tmp_path: Path) -> None:
    array_of(tmp_path / "a", 2, "zstd", [numcodecs.AsType("<u2", "|u1"), numcodecs.CRC32()])
    assert (open_volume(tmp_path / "a").read(GRID.box) == np.arange(4096).reshape(GRID.shape) % 251).all()


BOMB_MIB, LENT_MIB = 512, 200


def bombs() -> dict[str, bytes]:
    """What unpacks to half a GiB of zeros, or says so."""
    block = bytes(1 << 26)
    packer = zlib.compressobj(1)
    in_zlib = b"".join(packer.compress(block) for _ in range(BOMB_MIB // 64)) + packer.flush()
    rle = struct.pack("<I", 1 << 3 + 17 | 2)[:3] + b"\0"
    silent = b"\x28\xb5\x2f\xfd\x00\x58" + rle * (BOMB_MIB * 8) + b"\x01\x00\x00"
    blosc = bytearray(CheckedBlosc().encode(VALUES))
    blosc[4:8] = struct.pack("<I", BOMB_MIB << 20)
    return {
        "blosc": bytes(blosc),
        "bz2": bz2.compress(block) * (BOMB_MIB // 64),
        "gzip": gzip.compress(block, 1) * (BOMB_MIB // 64),
        "lz4": struct.pack("<I", BOMB_MIB << 20) + bytes(100),
        "lzma": lzma.compress(block, preset=0) * (BOMB_MIB // 64),
        "zlib": in_zlib,
        "zstd": silent,
    }


READ_IN_LITTLE_MEMORY = """
import resource, sys
from ensemble.storage.opening import open_volume
from ensemble.support.errors import VolumeError
volumes = [open_volume(place) for place in sys.argv[2:]]
for volume in volumes[:2]:
    try:  # threads and buffers are made once
        volume.read(volume.grid.box)
    except VolumeError:
        pass
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
for volume in volumes:
    try:
        volume.read(volume.grid.box)
        print("read")
    except VolumeError as error:
        print(str(error).replace(volume.place, ""))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is limited and told in another way")
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_no_bomb_takes_memory_that_no_chunk_needs(tmp_path: Path) -> None:
    places = []
    for kind, data in bombs().items():
        for zarr_format in (2, 3):
            places.append(tmp_path / f"{kind}{zarr_format}")
            array_of(places[-1], zarr_format, kind).write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", READ_IN_LITTLE_MEMORY, str(LENT_MIB), *map(str, places)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == len(places)
    for place, line in zip(places, said, strict=True):
        assert "chunk" in line, place
        assert "unpacks to more than 73,728 bytes" in line or "Blosc header says" in line, (place, line)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_can_be_sent_to_another_process(tmp_path: Path, zarr_format: int) -> None:
    values = np.arange(16**3, dtype=np.uint16).reshape(GRID.shape)
    made = zarr.create_array(
        str(tmp_path / "a"), shape=GRID.shape, chunks=(8, 8, 8), dtype=values.dtype, zarr_format=zarr_format
    )
    made[:] = values
    sent = tmp_path / "sent.pickle"
    sent.write_bytes(pickle.dumps(open_node(tmp_path / "a")))
    script = "import pickle, sys, ensemble.storage; print(int(pickle.load(open(sys.argv[1], 'rb'))[:].sum()))"
    told = subprocess.run([sys.executable, "-c", script, str(sent)], capture_output=True, text=True, check=True)
    assert int(told.stdout) == values.sum()
