"""What a bucket says of its files: as it is, in few requests, and of one that does not list them a file at a time."""

import random

import numpy as np
import pytest

from ensemble.storage.em_pyramids import EM
from ensemble.storage.listing import first_names, size_bytes, state_of, states
from ensemble.storage.object_stores import open_remote
from ensemble.storage.opening import open_volume
from tests.storage.test_volume import GRID
from tests.support.bucket import answer
from tests.support.file_server import served
from tests.support.volumes import noise, write_array, write_em


@pytest.mark.parametrize("separator", ["/", "."])
def test_whatever_is_asked_is_told_of_each_file_that_is_there(bucket, separator):
    random.seed(0)
    names = [separator.join(map(str, (z, y, x))) for z in (0, 1, 10) for y in range(12) for x in range(40)]
    there = set(random.sample(names, 1200))
    for name in there:
        file = bucket.folder / "em/a" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * (1 + len(name)))
    remote = open_remote("s3://em/a")
    found = states(remote, [f"a/{name}" for name in names])
    assert {key.removeprefix("a/") for key in found} == there
    assert all(size_bytes(state) == 1 + len(key.removeprefix("a/")) for key, state in found.items())
    assert set(bucket.seen) == {"LIST"}
    assert bucket.seen["LIST"] <= 60  # rather than 1,440
    assert len(first_names(remote)) == 1000
    assert states(remote, ["a/nothing/of/that"]) == {}


def test_what_was_read_is_in_the_state_that_was_listed(bucket):
    (bucket.folder / "em/a").write_bytes(b"one")
    remote = open_remote("s3://em")
    (state,) = states(remote, ["a"]).values()
    assert state_of(remote.store.get("a").meta) == state
    (bucket.folder / "em/a").write_bytes(b"two")
    assert states(remote, ["a"]) != {"a": state}


@pytest.mark.parametrize("refused", ["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"])
def test_a_bucket_that_does_not_list_is_asked_a_file_at_a_time(bucket, refused):
    write_em(bucket.folder / "em", "d", [(noise(GRID.shape), GRID)])
    listed = EM("s3://em").pyramid("d").levels[0].identity(GRID.box)
    bucket.disturb = lambda request: answer(refused, "AccessDenied") if "list-type" in request else None
    volume = EM("s3://em").pyramid("d").levels[0]
    assert volume.present(GRID.box.to_chunks(volume.chunks)).all()
    assert volume.identity(GRID.box) == listed


def test_a_host_of_files_is_asked_a_file_at_a_time_and_once(tmp_path):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    (place / "1.0.1").unlink()
    with served(tmp_path) as host:
        volume = open_volume(f"http://{host}/a")
        there = volume.present(GRID.box.to_chunks(volume.chunks))
        before = volume.identity(GRID.box)
        assert volume.identity(GRID.box) == before
        (place / "1.0.2").write_bytes(b"other")
        assert open_volume(f"http://{host}/a").identity(GRID.box) != before
    assert np.argwhere(~there).tolist() == [[1, 0, 1]]
