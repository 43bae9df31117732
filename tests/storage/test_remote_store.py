"""Arrays in a bucket read as those on disk, with no request that is not needed."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensemble.core.box import Box
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.storage.em_pyramids import EM
from ensemble.storage.nodes import store_behind
from ensemble.storage.opening import open_volume
from ensemble.storage.remote_store import RemoteStore
from ensemble.storage.tissue import find_tissue
from ensemble.storage.truth import open_truth
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.volumes import noise, write_array, write_em

WHOLE = Box.of_shape(GRID.shape)


@pytest.fixture
def served_em(bucket):
    write_em(bucket.folder / "em", "d", [(noise(GRID.shape), GRID)])
    return bucket


def level(cache_bytes: int = 0):
    return EM("s3://em", cache_bytes=cache_bytes).pyramid("d").levels[0]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("shards", [None, (16, 32, 32)])
def test_an_array_reads_as_on_disk(bucket, zarr_format, separator, shards):
    if shards and zarr_format == 2:
        return
    values = noise((40, 30, 50))
    zarr.create_array(
        str(bucket.folder / "em/a"),
        data=values,
        chunks=(8, 16, 16),
        shards=shards,
        zarr_format=zarr_format,
        fill_value=0,
        attributes={"voxel_size": [8, 8, 8], "translation": [4, 4, 4]},
        chunk_key_encoding={"name": "v2" if zarr_format == 2 else "default", "separator": separator},
    )
    volume = open_volume("s3://em/a")
    part = Box((3, 2, 1), (33, 29, 50))
    assert np.array_equal(volume.read(part), values[part.slices])
    assert volume.present(part.to_chunks(volume.chunks)).all()


CHUNKS = [f"{z}.{y}.{x}" for z in range(2) for y in range(2) for x in range(3)]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=st.sets(st.sampled_from(CHUNKS[1:])))
def test_what_is_absent_is_absent_as_on_disk(served_em, lost):
    write_em(served_em.folder / "em", "d", [(noise(GRID.shape), GRID)])
    here = EM(served_em.folder / "em").pyramid("d").levels[0]
    for name in lost:
        (path,) = served_em.folder.rglob(name)
        path.unlink()
    there = level()
    chunks = WHOLE.to_chunks(here.chunks)
    assert np.array_equal(there.present(chunks), here.present(chunks))
    assert np.array_equal(there.read(WHOLE), here.read(WHOLE))
    core = Box((4, 4, 4), (20, 20, 20))
    tissue = find_tissue(here, core, WHOLE)
    assert find_tissue(there, core, WHOLE).box == tissue.box
    assert np.array_equal(replace(tissue, volume=there).read(WHOLE), tissue.read(WHOLE))


def test_a_chunk_costs_one_request_whether_it_is_there_or_not(served_em):
    volume = level()
    for name in ("0.0.1", "1.1.0"):
        next(served_em.folder.rglob(name)).unlink()
    served_em.forget()
    volume.read(WHOLE)
    assert dict(served_em.seen) == {"GET": 12}
    volume.present(WHOLE.to_chunks(volume.chunks))
    served_em.forget()
    volume.read(WHOLE)  # by now it is known which are not there
    assert dict(served_em.seen) == {"GET": 10}


def test_what_is_in_the_cache_is_not_read_again_until_it_changes(served_em):
    first = level(1 << 30).read(WHOLE)
    assert served_em.chunks() == 12
    served_em.forget()
    assert np.array_equal(level(1 << 30).read(WHOLE), first)
    assert served_em.chunks() == 0
    changed = 255 - first
    write_em(served_em.folder / "em", "d", [(changed, GRID)])
    assert np.array_equal(level(1 << 30).read(WHOLE), changed)


def test_a_changed_chunk_changes_the_identity_of_what_lies_over_it_alone(served_em):
    first, last = Box((0, 0, 0), (4, 4, 4)), Box((16, 16, 32), (20, 30, 40))
    before = [level().identity(box) for box in (first, last)]
    path = next(served_em.folder.rglob("0.0.0"))
    path.write_bytes(path.read_bytes() + b"\0")
    after = [level().identity(box) for box in (first, last)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_chunk_that_changes_or_goes_while_it_is_read_is_refused(served_em):
    volume = level()
    volume.look_up(WHOLE)
    path = next(served_em.folder.rglob("0.0.0"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(VolumeError, match=r"0\.0\.0: it was changed while it was read; run the same command again"):
        volume.read(WHOLE)
    path.unlink()
    with pytest.raises(VolumeError, match=r"0\.0\.0: it was taken away while it was read"):
        volume.read(WHOLE)


def test_another_process_knows_what_this_one_knew_and_gets_no_credentials(served_em, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKI")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    volume = level()
    volume.look_up(WHOLE)
    sent = pickle.dumps(volume)
    assert b"s3cr3t" not in sent and b"AKI" not in sent
    served_em.forget()
    other = pickle.loads(sent)
    assert np.array_equal(other.read(WHOLE), noise(GRID.shape))
    assert dict(served_em.seen) == {"GET": 12}
    assert isinstance(store_behind(other.array), RemoteStore)


def test_truth_and_predictions_are_found_and_chunks_of_other_names_told(bucket):
    target = Target("7", "d", Grid(GRID.shape, GRID.voxel_size_nm, GRID.origin_nm), ("mito",))
    place = write_array(bucket.folder / "em/truth/crop7/mito", noise(GRID.shape), GRID)
    assert np.array_equal(open_truth("s3://em/truth", target, "mito").read(WHOLE), noise(GRID.shape))
    assert open_truth("s3://em/truth", target, "nuc") is None
    for path in list(place.glob("[0-9]*")):
        new = place / path.name.replace(".", "/")
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    with pytest.raises(VolumeError, match=r"none of its chunks is found: there is [0-9]/"):
        open_truth("s3://em/truth", target, "mito")
