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

_STREAMS: Mapping[str, Callable[[], Any]] = {
    "zlib": zlib.decompressobj,
    "gzip": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
_DECLARED = {"blosc": 4, "lz4": 0}
"""Where in what these packed stands how large it was: 32 bits."""


def decoded(codec: numcodecs.abc.Codec, data: Any, limit_bytes: int) -> Any:
    """What ``data`` was before the codec. Raises ValueError, or what the codec raises, where that is too much.

    zstd alone, where it does not say how large it becomes, is judged afterwards.
    """
    kind = codec.codec_id
    if kind in _STREAMS and getattr(codec, "format", lzma.FORMAT_XZ) == lzma.FORMAT_XZ:
        return _unpacked(_STREAMS[kind], bytes(data), limit_bytes)
    if kind in _DECLARED:
        (size,) = struct.unpack_from("<I", data, _DECLARED[kind])
        _within(size, limit_bytes)
    if kind == "zstd":
        _within(_zstd_size(bytes(data[:18])), limit_bytes)
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


def _zstd_size(header: bytes) -> int:
    """The content size of a frame (RFC 8878, 3.1.1.1); 0 where it does not say."""
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    flag, single = header[4] >> 6, header[4] >> 5 & 1
    length = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[header[4] & 3]
    field = header[start : start + length]
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)


def _within(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise ValueError(f"it unpacks to more than {limit_bytes:,} bytes, which no chunk of this array does")
