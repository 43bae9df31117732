"""Zarr arrays and groups at a path or URL, opened to be read, and which files lie there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zarr

from ensemble.storage import whole_shards  # noqa: F401  (shards are read through it)
from ensemble.storage.checked_codecs import bound
from ensemble.support import VolumeError, one_line

Location = str | Path

ZarrArray = zarr.Array[Any]

_DAMAGE = (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError)
"""What zarr raises, beside ValueError, for metadata of other types or a thousand deep."""


_PROTOCOLS = frozenset({"file", "http", "https", "s3", "gs"})


def foreign_protocol(place: str) -> str:
    """Why nothing is read from a place: it names a way there that is none of the few; "" where all is well.

    fsspec knows dozens: some run commands, log in elsewhere, or read what a file on the way tells them to.
    """
    before, url, _ = place.partition("://")
    if "::" in place or (url and before.lower() not in _PROTOCOLS):
        way = place.partition("::")[0] if "::" in place else before
        return f"nothing is read by {way!r}; give a path, or a URL of {', '.join(sorted(_PROTOCOLS))}"
    return ""


def open_node(place: Location) -> ZarrArray | zarr.Group:
    """The Zarr array or group at a path or URL, read only. Raises VolumeError."""
    text = str(place)
    if foreign := foreign_protocol(text):
        raise VolumeError(f"{text}: {foreign}")
    if "://" not in text and not Path(text).exists():
        raise VolumeError(f"{text}: there is no such array; check the path and that the data was fetched")
    try:
        node = zarr.open(text, mode="r", storage_options=_options(text) or None)
        if isinstance(node, zarr.Array):
            bound(node)
        return node
    except FileNotFoundError as error:
        raise VolumeError(f"{text}: there is no Zarr array or group here") from error
    except ImportError as error:
        raise VolumeError(f"{text}: reading a URL needs fsspec and s3fs: pip install s3fs") from error
    except (ValueError, OSError) as error:
        raise VolumeError(f"{text}: not readable as Zarr: {one_line(error)}") from error
    except _DAMAGE as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise VolumeError(f"{text}: its metadata are not those of Zarr ({what}); write it again") from error


def _options(url: str) -> dict[str, Any]:
    return {"anon": True} if url.startswith("s3://") else {}


def exist(place: str, names: Sequence[str]) -> list[bool]:
    """Which files there are under a path or URL."""
    if "://" not in place:
        return [os.path.isfile(f"{place}/{name}") for name in names]
    import fsspec  # only what is read from a URL needs it

    filesystem, root = fsspec.url_to_fs(place, **_options(place))
    return [bool(filesystem.exists(f"{root}/{name}")) for name in names]
