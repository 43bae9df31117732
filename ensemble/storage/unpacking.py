"""One stage of decoding a chunk, which never makes more than the chunk can be."""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numcodecs

SLACK_BYTES = 1 << 16
"""What a stage may make beyond twice the chunk: checksums and headers."""

_MOST_BLOCK_BYTES = 1 << 17
"""That a block of zstd makes."""
_LEAST_BLOCK_BYTES = 1 << 13
"""To which its newer versions cut blocks, where contents change."""

_STREAMS: Mapping[str, Callable[[], Any]] = {
    "zlib": zlib.decompressobj,
    "gzip": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
_DECLARED = {"blosc": 4, "lz4": 0}
"""Where in what these packed stands how large it was: 32 bits."""


def limit_bytes(chunk_bytes: int) -> int:
    """What a stage may make of a chunk of so many bytes: filters may widen its numbers."""
    return 2 * chunk_bytes + SLACK_BYTES


def decoded(codec: numcodecs.abc.Codec, data: Any, limit_bytes: int) -> Any:
    """What ``data`` was before the codec. Raises ValueError, or what the codec raises, where that is too much.

    zstd, where it does not say how large it becomes, may make sixteen times that before it is told.
    """
    kind = codec.codec_id
    if kind in _STREAMS and getattr(codec, "format", lzma.FORMAT_XZ) == lzma.FORMAT_XZ:
        return _unpacked(_STREAMS[kind], bytes(data), limit_bytes)
    if kind in _DECLARED:
        (size,) = struct.unpack_from("<I", data, _DECLARED[kind])
        _within(size, limit_bytes)
    if kind == "zstd":
        _within_zstd(bytes(data), limit_bytes)
    made = codec.decode(data)
    _within(memoryview(made).nbytes, limit_bytes)
    return made


def _unpacked(make: Callable[[], Any], data: bytes, limit_bytes: int) -> bytes:
    """One stream after the other."""
    made, left = [], limit_bytes + 1
    while data:
        stream = make()
        made.append(stream.decompress(data, left))
        left -= len(made[-1])
        _within(limit_bytes + 1 - left, limit_bytes)
        if not stream.eof:
            raise EOFError("it is cut short")
        data = stream.unused_data
    return b"".join(made)


def _within_zstd(frame: bytes, limit_bytes: int) -> None:
    """By the content size in its header (RFC 8878, 3.1.1.1), or where that is silent by what its blocks can make."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("it is no frame of zstd")
    flag, single = frame[4] >> 6, frame[4] >> 5 & 1
    length = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[frame[4] & 3]
    if length:
        _within(int.from_bytes(frame[start : start + length], "little") + (256 if flag == 1 else 0), limit_bytes)
        return
    most, blocks, last = _MOST_BLOCK_BYTES // _LEAST_BLOCK_BYTES * limit_bytes, 0, False
    while not last and start + 3 <= len(frame):
        header = int.from_bytes(frame[start : start + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        blocks += size if kind < 2 else _MOST_BLOCK_BYTES
        start += 3 + (1 if kind == 1 else size)
        if blocks > max(most, _MOST_BLOCK_BYTES):
            _within(blocks, limit_bytes)


def _within(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"it unpacks to more than {limit_bytes:,} bytes, which no chunk of this array does")
