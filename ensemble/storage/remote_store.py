"""The files of one Zarr array or group behind a URL, as the zarr library reads them: each asked for once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ObjectStore

from ensemble.storage import listing
from ensemble.storage.chunk_cache import ChunkCache
from ensemble.storage.object_stores import CONCURRENCY, Remote, faults, open_remote, refuse_forked
from ensemble.storage.remote_trouble import code_of, in_words, is_whole
from ensemble.support import VolumeError

zarr.config.set({"async.concurrency": CONCURRENCY})


class RemoteStore(ObjectStore[Any]):
    """What lies at ``url``, to be read. Keys are paths in its bucket.

    Of files whose state was asked for, one that was not there is not asked for again, one that changed since is
    refused, and one that is in the ``cache`` is taken from there. Any other is one request, whether it is there or not.
    """

    def __init__(self, url: str, cache: ChunkCache | None = None, known: dict[str, str] | None = None) -> None:
        self.remote: Remote = open_remote(url)
        super().__init__(self.remote.store, read_only=True)
        self._url, self._cache = url, cache
        self._known: dict[str, str] = {} if known is None else known

    def __reduce__(self) -> tuple[type["RemoteStore"], tuple[str, ChunkCache | None, dict[str, str]]]:
        """Without credentials: those of the process that reads are taken."""
        return RemoteStore, (self._url, self._cache, self._known)

    def __str__(self) -> str:
        return self._url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._url == self._url

    __hash__ = None  # type: ignore[assignment]

    def with_read_only(self, read_only: bool = False) -> "RemoteStore":
        return self

    @property
    def has_cache(self) -> bool:
        return self._cache is not None

    def key(self, name: str) -> str:
        """The path in the bucket of a file beneath the URL."""
        return f"{self.remote.path}/{name}" if self.remote.path else name

    def states(self, names: Sequence[str]) -> list[str]:
        """Of files beneath the URL what changes when they do, "" of one that is not there; asked for once."""
        keys = [self.key(name) for name in names]
        unknown = [key for key in keys if key not in self._known]
        if unknown:
            found = listing.states(self.remote, unknown)
            self._known.update((key, found.get(key, "")) for key in unknown)
        return [self._known[key] for key in keys]

    def first_names(self) -> list[str] | None:
        """Names of the first thousand files beneath the URL; None where they are not told."""
        return listing.first_names(self.remote)

    async def exists(self, key: str) -> bool:
        return key in (await asyncio.to_thread(listing.states, self.remote, [key]))

    async def get(self, key: str, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        state = self._known.get(key)
        if state == "":
            return None
        data = await self._data(key, state, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def _data(self, key: str, state: str | None, byte_range: ByteRequest | None) -> Any:
        """Bytes of a file; None where it is not there."""
        if self._cache is None or state is None:
            return await self._asked(key, state, byte_range)
        name = f"{self.remote.root}/{key} {state} {byte_range}"
        data = await asyncio.to_thread(self._cache.get, name)
        if data is None:
            data = await self._asked(key, state, byte_range)
            if data is not None:
                await asyncio.to_thread(self._cache.put, name, data)
        return data

    async def _asked(self, key: str, state: str | None, byte_range: ByteRequest | None) -> Any:
        url = f"{self.remote.root}/{key}"
        refuse_forked(url)
        try:
            answer = await self.store.get_async(key, options={"range": _range(byte_range)} if byte_range else None)
            if state is not None and listing.state_of(answer.meta) != state:
                raise VolumeError(f"{url}: it was changed while it was read; run the same command again")
            return await answer.bytes_async()
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise VolumeError(in_words(url, error)) from error
            if state is None:
                return None
            raise VolumeError(f"{url}: it was taken away while it was read; run the same command again") from error
        except faults() as error:
            if byte_range is None or not is_whole(error):
                raise VolumeError(in_words(url, error)) from error
            whole = await self._asked(key, state, None)
            return None if whole is None else memoryview(whole)[_slice(byte_range, len(whole))]


def _slice(wanted: ByteRequest, length: int) -> slice:
    """A part of a file of so many bytes."""
    if isinstance(wanted, RangeByteRequest):
        return slice(wanted.start, wanted.end)
    return slice(length - wanted.suffix if isinstance(wanted, SuffixByteRequest) else wanted.offset, length)


def _range(wanted: ByteRequest) -> Any:
    """A part of a file, as the library is told it."""
    if isinstance(wanted, RangeByteRequest):
        return (wanted.start, wanted.end)
    return {"suffix": wanted.suffix} if isinstance(wanted, SuffixByteRequest) else {"offset": wanted.offset}
