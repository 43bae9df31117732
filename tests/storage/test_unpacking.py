"""A stage of decoding gives back what was encoded, and never more than the limit, however small the bomb."""

import bz2
import gzip
import lzma
import struct
import zlib

import numcodecs
import numpy as np
import pytest

from ensemble.storage.unpacking import decoded, limit_bytes

VALUES = np.arange(5000, dtype=np.uint16)
CODECS = ["blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"]


@pytest.mark.parametrize("name", CODECS)
def test_what_was_encoded_comes_back_within_the_limit_and_not_beyond(name):
    codec = numcodecs.get_codec({"id": name})
    encoded = codec.encode(VALUES)
    assert bytes(decoded(codec, encoded, VALUES.nbytes)) == VALUES.tobytes()
    with pytest.raises(ValueError, match="unpacks to more than 9,999 bytes"):
        decoded(codec, encoded, VALUES.nbytes - 1)


@pytest.mark.parametrize("name", CODECS)
def test_what_is_cut_short_is_told(name):
    codec = numcodecs.get_codec({"id": name})
    with pytest.raises((ValueError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, struct.error)):
        decoded(codec, bytes(codec.encode(VALUES))[:-4], VALUES.nbytes)


BOMBS = {
    "bz2": bz2.compress(bytes(1 << 26)) * 4,
    "gzip": gzip.compress(bytes(1 << 26)) * 4,
    "lzma": lzma.compress(bytes(1 << 26)),
    "zlib": zlib.compress(bytes(1 << 26)),
    "zstd": bytes(numcodecs.Zstd().encode(bytes(1 << 26))),
    "blosc": bytes(numcodecs.Blosc().encode(bytes(1 << 26))),
    "lz4": struct.pack("<I", 2**31 - 1) + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(name):
    codec = numcodecs.get_codec({"id": name})
    decode, codec_called = codec.decode, []

    class Watched(type(codec)):
        def decode(self, *given):
            codec_called.append(given)
            return decode(*given)

    codec.__class__ = Watched
    with pytest.raises(ValueError, match="unpacks to more than 512 bytes"):
        decoded(codec, BOMBS[name], 512)
    assert codec_called == []


def test_streams_one_after_the_other_are_one():
    data = gzip.compress(b"ab") + gzip.compress(b"cd")
    assert decoded(numcodecs.GZip(), data, 4) == b"abcd"


def test_a_frame_of_zstd_says_its_size_in_each_way():
    for size in (1, 200, 300, 70_000):
        encoded = bytes(numcodecs.Zstd().encode(bytes(size)))
        assert bytes(decoded(numcodecs.Zstd(), encoded, size)) == bytes(size)
        with pytest.raises(ValueError, match="unpacks to more"):
            decoded(numcodecs.Zstd(), encoded, size - 1)


def zstd_frame(*blocks: tuple[int, bytes, int]) -> bytes:
    """A frame that is silent on its size, of blocks (kind, bytes, size)."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58"
    for number, (kind, data, size) in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += (size << 3 | kind << 1 | last).to_bytes(3, "little") + data
    return frame


def test_a_frame_of_zstd_that_is_silent_is_read_and_a_bomb_is_not():
    raw, runs = (0, b"abc", 3), (1, b"\0", 1 << 17)
    assert bytes(decoded(numcodecs.Zstd(), zstd_frame(raw, raw), 6)) == b"abcabc"
    assert len(decoded(numcodecs.Zstd(), zstd_frame(runs, raw), limit_bytes(1 << 16))) == (1 << 17) + 3
    with pytest.raises(ValueError, match="unpacks to more"):
        decoded(numcodecs.Zstd(), zstd_frame(raw, raw), 5)
    with pytest.raises(ValueError, match="unpacks to more"):
        decoded(numcodecs.Zstd(), zstd_frame(*[runs] * (1 << 14)), 1 << 17)
    with pytest.raises(ValueError, match="no frame of zstd"):
        decoded(numcodecs.Zstd(), b"\x50\x2a\x4d\x18" + bytes(20), 5)
