"""Which files there are in a bucket, and in which state: a thousand to a request, where the bucket lists them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ensemble.storage.object_stores import CONCURRENCY, Remote, asked
from ensemble.storage.remote_trouble import code_of, in_words, is_refused
from ensemble.support import VolumeError, in_threads

if TYPE_CHECKING:
    from obstore import ObjectMeta

PAGE = 1000
"""Files that S3 and its like tell of in one answer."""

_FEW = 32
"""Names that one process of asking should stand for at least."""


def state_of(meta: "ObjectMeta") -> str:
    """What changes when the file does: its size, and its ETag, or when it was written where it has none."""
    tag = (meta.get("e_tag") or "").removeprefix("W/").strip('"')
    return f"{meta['size']} {tag or meta['last_modified'].isoformat()}"


def size_bytes(state: str) -> int:
    """Of a file in that state."""
    return int(state.partition(" ")[0])


def states(remote: Remote, keys: Iterable[str]) -> dict[str, str]:
    """The states of those files that there are, by key. Raises VolumeError where that is not told."""
    wanted = sorted(set(keys))
    if remote.lists:
        try:
            return _merged(in_threads(CONCURRENCY, lambda run: _listed(remote, run), _runs(wanted)))
        except _NoList:
            pass
    return _merged(in_threads(CONCURRENCY, lambda key: _looked_at(remote, key), wanted))


def first_names(remote: Remote) -> list[str] | None:
    """Names beneath the remote's path, of the first thousand files; None where they are not told."""
    if not remote.lists:
        return None
    try:
        page = _page(remote, remote.path, None)
    except _NoList:
        return None
    return [meta["path"].removeprefix(f"{remote.path}/") for meta in page]


class _NoList(Exception):
    """The bucket's files may be read, not listed."""


def _runs(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Sorted keys in parts that are asked for at a time: of one folder of folders, and not too few."""
    longest = max(_FEW, -(-len(keys) // CONCURRENCY))
    for _, of_folder in groupby(keys, lambda key: key.rsplit("/", 2)[0]):
        found = list(of_folder)
        for start in range(0, len(found), longest):
            yield found[start : start + longest]


def _listed(remote: Remote, run: Sequence[str]) -> dict[str, str]:
    """A page at a time, each from the first key that is not told of yet."""
    folder, found = _common_folder(run[0], run[-1]), {}
    at = 0
    while at < len(run):
        page = _page(remote, folder, run[at][:-1])
        told = {meta["path"]: meta for meta in page}
        last = page[-1]["path"] if len(page) == PAGE else None
        while at < len(run) and (last is None or run[at] <= last):
            meta = told.get(run[at])
            if meta is not None:
                found[run[at]] = state_of(meta)
            at += 1
    return found


def _page(remote: Remote, folder: str, after: str | None) -> Sequence["ObjectMeta"]:
    """The first files beneath a folder, of those that come after a key. Raises _NoList, VolumeError."""

    def first() -> Sequence["ObjectMeta"]:
        try:
            return next(iter(remote.store.list(folder or None, offset=after, chunk_size=PAGE)), [])
        except _base_error() as error:
            if is_refused(error):
                raise _NoList from error
            raise

    page: Sequence[ObjectMeta] = asked(f"{remote.root}/{folder}", first)
    return page


def _common_folder(first: str, last: str) -> str:
    """The folder that holds both, and whatever lies between."""
    names = []
    for one, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        if one != other:
            break
        names.append(one)
    return "/".join(names)


def _looked_at(remote: Remote, key: str) -> dict[str, str]:
    url = f"{remote.root}/{key}"

    def head() -> dict[str, str]:
        try:
            return {key: state_of(remote.store.head(key))}
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise VolumeError(in_words(url, error)) from error
            return {}

    found: dict[str, str] = asked(url, head)
    return found


def _base_error() -> type[Exception]:
    from obstore.exceptions import BaseError

    return BaseError


def _merged(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in parts:
        merged |= part
    return merged
