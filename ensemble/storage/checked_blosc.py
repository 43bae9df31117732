"""Blosc that never reads beyond what it is given: numcodecs believes a chunk's header, however short the chunk is.

Importing this module has both numcodecs and the zarr library decode through it.
"""

import struct
from functools import cached_property
from typing import Any

import numcodecs
import zarr
from numcodecs.blosc import Blosc
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.codecs import BloscCodec

HEADER_BYTES = 16
"""Version, compressor, flags and type size, a byte each; then size, block size and compressed size, 32 bits each
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst)."""
MAX_CHUNK_BYTES = 2**31


class CheckedBlosc(Blosc):  # type: ignore[misc]  # numcodecs is not typed
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


class CheckedBloscCodec(BloscCodec):
    """The same for arrays of Zarr v3."""

    @cached_property
    def _blosc_codec(self) -> Blosc:
        config = super()._blosc_codec.get_config()
        return CheckedBlosc.from_config({key: value for key, value in config.items() if key != "id"})


numcodecs.register_codec(CheckedBlosc, "blosc")
zarr.registry.register_codec("blosc", CheckedBloscCodec)
zarr.config.set({"codecs.blosc": f"{CheckedBloscCodec.__module__}.{CheckedBloscCodec.__qualname__}"})
