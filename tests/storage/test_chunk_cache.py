"""Copies of chunks: right or not there, never more than was said, and shared by processes."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from ensemble.storage.chunk_cache import ChunkCache, em_cache
from tests.support.processes import python

KIB = 1 << 10


def files(cache: ChunkCache) -> list:
    return [path for path in cache.folder.glob("*/*") if path.is_file()]


def test_what_was_kept_is_there_for_the_next(tmp_path):
    ChunkCache(tmp_path, 64 * KIB).put("a", b"one")
    cache = pickle.loads(pickle.dumps(ChunkCache(tmp_path, 64 * KIB)))
    assert (cache.get("a"), cache.get("b")) == (b"one", None)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_copy_is_none(tmp_path, damage):
    cache = ChunkCache(tmp_path, 64 * KIB)
    cache.put("a", b"one two three")
    (path,) = files(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("a") is None
    assert files(cache) == []


def test_the_oldest_used_leave_first(tmp_path):
    cache = ChunkCache(tmp_path, 64 * KIB)
    for number in range(50):
        cache.put(str(number), bytes(KIB))
        for path in files(cache):  # as if all that was used so far was used a second earlier
            status = path.stat()
            os.utime(path, (status.st_atime, status.st_mtime - 1))
    assert cache.get("0") is not None  # and so it is the one that was used last
    for number in range(50, 70):
        cache.put(str(number), bytes(KIB))
    there = [number for number in range(70) if cache.get(str(number)) is not None]
    assert 0 in there and 69 in there and 1 not in there
    assert sum(path.stat().st_size for path in files(cache)) <= 64 * KIB


def test_without_room_or_leave_nothing_is_kept_and_nobody_is_disturbed(tmp_path):
    cache = ChunkCache(tmp_path / "file" / "below", 64 * KIB)
    (tmp_path / "file").write_text("in the way")
    cache.put("a", b"one")
    assert cache.get("a") is None
    small = ChunkCache(tmp_path / "small", KIB)
    small.put("a", bytes(KIB))
    assert small.get("a") is None
    assert em_cache(0) is None


FILL = """
import sys
from pathlib import Path
from ensemble.storage.chunk_cache import ChunkCache

cache, first, wrong = ChunkCache(Path(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3]), 0
for number in range(first, first + 100):
    cache.put(str(number % 120), str(number % 120).encode() * 300)
    found = cache.get(str(number * 7 % 120))
    wrong += found is not None and found != str(number * 7 % 120).encode() * 300
print(wrong)
"""


def test_processes_share_it(tmp_path):
    cache = ChunkCache(tmp_path, 48 * KIB)
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda first: python(FILL, tmp_path, cache.limit_bytes, first), (0, 50)))
    assert [(process.stdout, process.stderr) for process in ended] == [("0\n", "")] * 2
    assert 0 < sum(path.stat().st_size for path in files(cache)) <= cache.limit_bytes
