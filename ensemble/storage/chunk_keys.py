"""Chunks that are there, but under other names than an array's metadata gives them: they would read as background."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.storage.nodes import ZarrArray, store_behind
from ensemble.support import VolumeError, one_line

if TYPE_CHECKING:
    from ensemble.storage.remote_store import RemoteStore

_CHUNK_NAME = re.compile(r"(c[./])?(0|[1-9][0-9]{0,17})([./](0|[1-9][0-9]{0,17}))*")

_SCHEMES = tuple(product((("c",), ()), ("/", ".")))
"""What Zarr puts before a chunk's numbers, and between them."""


def refuse_misnamed_chunks(array: ZarrArray, place: str) -> None:
    """Raises VolumeError for an array of which there are chunks, though none by the names of its own metadata.

    One without any chunk is all background. Beneath a folder names are looked at until the first chunk is found; of a
    bucket the first thousand are, and where it does not list them the first, middle and last chunk are asked for.
    """
    counts = [-(-n // c) for n, c in zip(array.shape, array.shards or array.chunks, strict=True)]
    encode = array.metadata.encode_chunk_key

    def is_own(name: str) -> bool:
        index = tuple(map(int, re.findall("[0-9]+", name)))
        within = len(index) == len(counts) and all(i < n for i, n in zip(index, counts, strict=True))
        return within and encode(index) == name

    try:
        foreign = foreign_chunk(_names_beneath(array, place, counts), is_own)
    except OSError as error:
        raise VolumeError(f"{place}: its chunks cannot be listed: {one_line(error)}") from error
    if foreign is not None:
        own = encode((0,) * len(counts)), encode(tuple(n - 1 for n in counts))
        metadata = ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
        raise VolumeError(f"{place}: {misnamed(foreign, own, metadata)}")


def foreign_chunk(names: Iterable[str], is_own: Callable[[str], bool]) -> str | None:
    """Of the files beneath an array one that is a chunk by its name, though none of the array's.

    None where there is none, and as soon as one of ``names`` ``is_own``.
    """
    foreign = None
    for name in names:
        if is_own(name):
            return None
        if foreign is None and _CHUNK_NAME.fullmatch(name):
            foreign = name
    return foreign


def misnamed(foreign: str, own: tuple[str, str], metadata: str) -> str:
    """What to tell of chunks named like ``foreign``, where the file ``metadata`` names them ``own``, first and last."""
    fault = f"none of its chunks is found: there is {foreign}, but by its {metadata} they go from {own[0]} to {own[1]}"
    separator = "/" if "/" in foreign else "."
    if separator in own[0] or _shape(foreign) != _shape(own[0]):
        return f"{fault}; write the array again, or its metadata"
    where = f"its {metadata}" if metadata == ".zarray" else f"the chunk_key_encoding of its {metadata}"
    key = "dimension_separator" if metadata == ".zarray" else "separator"
    return f'{fault}; they seem to be separated by "{separator}": write "{key}": "{separator}" into {where}'


def _shape(name: str) -> list[bool]:
    """Which parts of a chunk's name are numbers."""
    return [part.isdigit() for part in re.split("[./]", name)]


def chunk_names(array: ZarrArray, along: Sequence[Iterable[int]]) -> list[str]:
    """Names of the chunks' files whose number along each axis is one of those given, the last axis fastest.

    As the array's metadata make them of one index, and all at once: there may be millions.
    """
    before, *after = re.split("[0-9]+", array.metadata.encode_chunk_key((1,) * len(along)))
    names = [before]
    for numbers, separator in zip(along, after, strict=True):
        parts = [f"{number}{separator}" for number in numbers]
        names = [name + part for name in names for part in parts]
    return names


def _names_beneath(array: ZarrArray, place: str, counts: Sequence[int]) -> Iterable[str]:
    """Names of files beneath an array, as many as it takes to find a chunk, or all that are told."""
    store = store_behind(array)
    if store is None:
        return _files_beneath(Path(place))
    names = store.first_names()
    return _three_chunks(store, counts, array.metadata.encode_chunk_key) if names is None else names


def _three_chunks(store: "RemoteStore", counts: Sequence[int], own: Callable[[tuple[int, ...]], str]) -> Iterator[str]:
    """Which of three chunks there are, by their own names and then by any scheme."""
    chunks = [tuple(map(at, counts)) for at in (lambda n: 0, lambda n: n // 2, lambda n: n - 1)]
    others = [separator.join([*prefix, *map(str, chunk)]) for chunk in chunks for prefix, separator in _SCHEMES]
    for names in (list(map(own, chunks)), others):
        yield from (name for name, state in zip(names, store.states(names), strict=True) if state)


def _files_beneath(folder: Path) -> Iterator[str]:
    """Names of the files in a folder and the folders in it, found as they are asked for."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(folder).as_posix()
