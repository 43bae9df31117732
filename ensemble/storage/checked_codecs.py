"""Codecs that never read beyond what they are given, and never make more than a chunk can be.

numcodecs believes a chunk's Blosc header, however short the chunk is, and unpacks streams to whatever length. Importing
this module has both numcodecs and the zarr library decode through what is here. Arrays of Zarr v3 tell a codec how
large a chunk is; to those of v2 ``bound`` tells it once.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.codecs import numcodecs as of_numcodecs

from ensemble.storage.unpacking import decoded, limit_bytes

HEADER_BYTES = 16
"""Version, compressor, flags and type size, a byte each; then size, block size and compressed size, 32 bits each
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst)."""
MAX_CHUNK_BYTES = 2**31


class CheckedBlosc(numcodecs.Blosc):  # type: ignore[misc]  # numcodecs is not typed
    """Blosc whose ``decode`` raises ValueError where the header says another length than there is."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        given = ensure_contiguous_ndarray(buf, max_buffer_size=None).reshape(-1).view("u1")
        if given.size < HEADER_BYTES:
            raise ValueError(f"{given.size} bytes where Blosc's header alone has {HEADER_BYTES}")
        size, _, compressed = struct.unpack("<III", given[4:HEADER_BYTES].tobytes())
        if compressed != given.size:
            raise ValueError(f"{given.size:,} bytes where its Blosc header says {compressed:,}: cut short or damaged")
        if size > MAX_CHUNK_BYTES:
            raise ValueError(f"its Blosc header says {size:,} bytes, more than any chunk")
        return super().decode(buf, out)


_PLAIN: Mapping[str, type[Codec]] = {
    "blosc": CheckedBlosc,
    "bz2": numcodecs.BZ2,
    "gzip": numcodecs.GZip,
    "lz4": numcodecs.LZ4,
    "lzma": numcodecs.LZMA,
    "zlib": numcodecs.Zlib,
    "zstd": numcodecs.Zstd,
}


def _plain(config: Mapping[str, Any]) -> Codec:
    settings = {key: value for key, value in config.items() if key != "id"}
    return _PLAIN[config["id"]].from_config(settings)


class _Bounded:
    """A codec of numcodecs that makes no more than it was told, if it was."""

    _limit_bytes: int | None = None

    def decode(self: Any, buf: Any, out: Any = None) -> Any:
        plain = _plain(self.get_config())
        if self._limit_bytes is None or out is not None:
            return plain.decode(buf, out)
        return decoded(plain, ensure_contiguous_ndarray(buf, max_buffer_size=None), self._limit_bytes)


class _BoundedByChunk:
    """A codec of Zarr v3 that makes no more than a chunk can be."""

    kind: str

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        codec = _plain(getattr(self, "codec_config", {"id": self.kind}))
        chunk = int(np.prod(chunk_spec.shape)) * chunk_spec.dtype.to_native_dtype().itemsize
        made = await asyncio.to_thread(decoded, codec, chunk_bytes.as_numpy_array(), limit_bytes(chunk))
        return chunk_spec.prototype.buffer.from_bytes(made)


def bound(array: zarr.Array[Any]) -> None:
    """Have an array of Zarr v2 decode no chunk to more than it can be."""
    if array.metadata.zarr_format == 2:
        limit = limit_bytes(int(np.prod(array.chunks)) * array.dtype.itemsize)
        for codec in (array.metadata.compressor, *(array.metadata.filters or ())):
            if isinstance(codec, _Bounded):
                codec._limit_bytes = limit


_OF_V3: Mapping[str, type[BytesBytesCodec]] = {
    **{"blosc": BloscCodec, "gzip": GzipCodec, "zstd": ZstdCodec},
    **{"numcodecs.blosc": of_numcodecs.Blosc, "numcodecs.bz2": of_numcodecs.BZ2, "numcodecs.gzip": of_numcodecs.GZip},
    **{"numcodecs.lz4": of_numcodecs.LZ4, "numcodecs.lzma": of_numcodecs.LZMA, "numcodecs.zlib": of_numcodecs.Zlib},
    "numcodecs.zstd": of_numcodecs.Zstd,
}


def _named(name: str, bases: tuple[type, ...], members: dict[str, Any]) -> type[Any]:
    """A class of this module, which other processes find here when an array is sent to them."""
    made = type(name, bases, {**members, "__module__": __name__})
    globals()[name] = made
    return made


def _register() -> None:
    for kind, plain in _PLAIN.items():
        numcodecs.register_codec(_named(f"Bounded{plain.__name__}", (_Bounded, plain), {}), kind)
    chosen = {}
    for key, codec in _OF_V3.items():
        bounded = _named(f"BoundedByChunk_{key.replace('.', '_')}", (_BoundedByChunk, codec), {"kind": key})
        zarr.registry.register_codec(key, bounded)
        chosen[key] = f"{__name__}.{bounded.__name__}"
    zarr.config.set({"codecs": {**zarr.config.get("codecs"), **chosen}})


_register()
