"""Zarr arrays and groups at a path or URL, opened to be read, and which files lie there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from ensemble.storage import whole_shards  # noqa: F401  (shards are read through it)
from ensemble.storage.addresses import Location, foreign_protocol, is_url, plain
from ensemble.storage.checked_codecs import bound
from ensemble.support import VolumeError, one_line

if TYPE_CHECKING:
    from ensemble.storage.chunk_cache import ChunkCache
    from ensemble.storage.remote_store import RemoteStore

ZarrArray = zarr.Array[Any]

_DAMAGE = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError)
"""What zarr raises, beside ValueError, for metadata of other types or a thousand deep."""


def open_node(place: Location, cache: "ChunkCache | None" = None) -> ZarrArray | zarr.Group:
    """The Zarr array or group at a path or URL, read only; chunks of a URL go to ``cache``. Raises VolumeError."""
    text = str(place)
    if foreign := foreign_protocol(text):
        raise VolumeError(f"{text}: {foreign}")
    text = plain(text)
    if not is_url(text) and not Path(text).exists():
        raise VolumeError(f"{text}: there is no such array; check the path and that the data was fetched")
    try:
        node = _open(text, cache)
        if isinstance(node, zarr.Array):
            bound(node)
        return node
    except FileNotFoundError as error:
        raise VolumeError(f"{text}: there is no Zarr array or group here") from error
    except (ValueError, OSError) as error:
        raise VolumeError(f"{text}: not readable as Zarr: {one_line(error)}") from error
    except _DAMAGE as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise VolumeError(f"{text}: its metadata are not those of Zarr ({what}); write it again") from error


def _open(place: str, cache: "ChunkCache | None") -> ZarrArray | zarr.Group:
    if not is_url(place):
        return zarr.open(place, mode="r")
    store = remote_store(place, cache)
    return zarr.open(store, path=store.remote.path, mode="r")


def remote_store(url: str, cache: "ChunkCache | None" = None) -> "RemoteStore":
    """What lies at a URL. Raises VolumeError where it cannot be gone there."""
    from ensemble.storage.remote_store import RemoteStore  # only what is read from a URL needs its library

    return RemoteStore(url, cache)


def store_behind(array: ZarrArray) -> "RemoteStore | None":
    """Where an array's files are asked for over a network; None where they lie on this machine."""
    store: Any = array.store
    return store if hasattr(store, "remote") else None


def exist(place: Location, names: Sequence[str]) -> list[bool]:
    """Which files there are under a path or URL. Raises VolumeError where a URL does not tell."""
    where = plain(place)
    if is_url(where):
        return [state != "" for state in remote_store(where).states(names)]
    return [os.path.isfile(f"{where}/{name}") for name in names]
