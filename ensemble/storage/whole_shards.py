"""Shards of Zarr v3 that are there in whole: the zarr library takes one that is cut short, or empty, for background.

Importing this module has the zarr library read shards through it.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import zarr
from zarr.abc.store import ByteGetter, ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import ShardingCodec

from ensemble.storage.unpacking import limit_bytes


@dataclass(frozen=True)
class _Whole(ByteGetter):
    """A shard's file. Raises ValueError where less of it is there than is asked for, or more than a chunk asked for."""

    file: ByteGetter
    most_bytes: int

    async def get(self, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        wanted = 1
        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
            if not 0 < wanted <= self.most_bytes:
                raise ValueError(f"the index of its shard says that a chunk has {wanted:,} bytes; it is damaged")
        elif isinstance(byte_range, SuffixByteRequest):
            wanted = byte_range.suffix
        found = await self.file.get(prototype, byte_range)
        if found is not None and len(found) < wanted:
            raise ValueError(
                f"its shard holds {len(found):,} bytes where {wanted:,} are to be; it is cut short or damaged"
            )
        return found


class WholeShards(ShardingCodec):
    """The codec of shards, none of which is read in part."""

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, shard_spec: Any) -> Any:
        chunk = prod(self.chunk_shape) * shard_spec.dtype.to_native_dtype().itemsize
        index = 16 * prod(shard_spec.shape) // prod(self.chunk_shape)
        whole = _Whole(byte_getter, max(limit_bytes(chunk), limit_bytes(index)))
        return await super()._decode_partial_single(whole, selection, shard_spec)


zarr.registry.register_codec("sharding_indexed", WholeShards)
zarr.config.set({"codecs.sharding_indexed": f"{__name__}.{WholeShards.__qualname__}"})
