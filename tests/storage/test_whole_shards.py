"""A shard that is cut short or whose index changed is refused; one that was never written is background."""

import random
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from ensemble.core.box import Box
from ensemble.storage.opening import open_volume
from ensemble.storage.whole_shards import WholeShards
from ensemble.support.errors import VolumeError
from tests.support.volumes import noise

SHAPE = (16, 16, 16)
VALUES = noise(SHAPE)
BOXES = [Box((0, 0, 0), SHAPE), Box((0, 0, 0), (8, 8, 8)), Box((1, 1, 1), (15, 15, 15))]


@pytest.fixture(params=[(at, checked) for at in ("start", "end") for checked in (True, False)])
def shard(tmp_path: Path, request) -> Path:
    """The file of an array of one shard, its index at either end, with a checksum or without."""
    at, checked = request.param
    index = [BytesCodec(), Crc32cCodec()] if checked else [BytesCodec()]
    sharding = ShardingCodec(
        chunk_shape=(8, 8, 8), codecs=[BytesCodec(), ZstdCodec()], index_codecs=index, index_location=at
    )
    array = zarr.create_array(
        str(tmp_path / "a"), shape=SHAPE, chunks=SHAPE, dtype="u1", fill_value=0, serializer=sharding, compressors=None,
        attributes={"voxel_size": [8, 8, 8], "translation": [4, 4, 4]},
    )  # fmt: skip
    array[...] = VALUES
    return tmp_path / "a/c/0/0/0"


def outcome(shard: Path, box: Box) -> str:
    try:
        values = open_volume(shard.parents[3]).read(box)
    except VolumeError:
        return "refused"
    return "right" if np.array_equal(values, VALUES[box.slices]) else "wrong"


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("box", BOXES)
def test_a_shard_that_is_cut_short_is_never_background(shard: Path, box: Box) -> None:
    assert type(open_volume(shard.parents[3]).array.metadata.codecs[0]).__name__ == WholeShards.__name__
    data = shard.read_bytes()
    assert outcome(shard, box) == "right"
    for length in (1, 10, 100, len(data) // 2, len(data) - 1):
        shard.write_bytes(data[:length])
        assert outcome(shard, box) != "wrong", length
    shard.write_bytes(b"")
    with pytest.raises(VolumeError, match="chunk c/0/0/0 cannot be read"):
        open_volume(shard.parents[3]).read(box)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("box", BOXES)
def test_a_bit_of_its_index_that_changed_is_never_background(shard: Path, box: Box) -> None:
    data, rng = shard.read_bytes(), random.Random(1)
    at_start = open_volume(shard.parents[3]).array.metadata.codecs[0].index_location.value == "start"
    for _ in range(60):
        spoilt, at = bytearray(data), rng.randrange(16 * 8)
        spoilt[at if at_start else len(data) - 1 - at] ^= 1 << rng.randrange(8)
        shard.write_bytes(spoilt)
        assert outcome(shard, box) != "wrong"


def test_a_shard_that_was_never_written_is_background(shard: Path) -> None:
    shard.unlink()
    assert not open_volume(shard.parents[3]).read(BOXES[0]).any()
