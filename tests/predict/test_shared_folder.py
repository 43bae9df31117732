"""The folder of predictions that builds share: who needs which, and what nobody needs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.core.manifest import Target
from ensemble.predict.prediction_store import claim, open_prediction
from ensemble.predict.shared_folder import NEEDED, SURVEYED, SharedPredictions
from ensemble.support.errors import EnsembleError
from tests.support import inference
from tests.support.inference import CLASSES, a_volume, job

KEYS = [f"{first * 64}-{last * 16}" for first in "ab" for last in "01"]
"""Two predictions of two kinds; those that begin alike differ in their classes only."""


def kept(shared: SharedPredictions, *keys: str) -> None:
    for key in keys:
        (shared.folder / f"{key}.zarr").mkdir(parents=True, exist_ok=True)
        (shared.folder / f"{key}.planes").touch()


def there(shared: SharedPredictions) -> set[str]:
    return {path.stem for path in shared.folder.glob("*.zarr")}


@pytest.fixture
def shared(tmp_path: Path) -> SharedPredictions:
    store = SharedPredictions(tmp_path / "build" / "predictions")
    store.need(tmp_path / "build" / "mine" / "work" / NEEDED, [])
    kept(store, *KEYS)
    return store


@given(needs=st.lists(st.tuples(st.sampled_from(["beside", "deep/down"]), st.sets(st.sampled_from(KEYS))), max_size=4))
def test_what_any_of_the_builds_needs_stays_and_all_else_goes(tmp_path_factory, needs) -> None:
    folder = tmp_path_factory.mktemp("s")
    shared = SharedPredictions(folder / "build" / "predictions")
    for number, (where, keys) in enumerate(needs):
        shared.need(folder / where / str(number) / "work" / NEEDED, keys)
    kept(shared, *KEYS)
    shared.free(shared.unneeded())
    assert there(shared) == set().union(*(keys for _, keys in needs))
    left = {path.name for path in shared.folder.iterdir()} - {"CACHEDIR.TAG", "users", "lock"}
    assert {name.partition(".")[0] for name in left} == there(shared)
    assert not [name for name in left if name.endswith(".part")]
    assert shared.unneeded() == []


def test_a_build_that_was_renamed_or_moved_with_its_store_is_still_known(shared: SharedPredictions, tmp_path) -> None:
    shared.need(tmp_path / "build" / "mine" / "work" / NEEDED, KEYS[:1])
    shared.need(tmp_path / "other" / "place" / "work" / SURVEYED, KEYS[3:])
    (tmp_path / "build" / "mine").rename(tmp_path / "build" / "yours")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("build", "other"):
        (tmp_path / name).rename(moved / name)
    again = SharedPredictions(moved / "build" / "predictions")
    again.free(again.unneeded())
    assert there(again) == {KEYS[0], KEYS[3]}


def test_an_array_of_more_classes_stays_where_it_serves(shared: SharedPredictions, tmp_path) -> None:
    (shared.folder / f"{KEYS[0]}.planes").unlink()  # never made: the other is used in its place
    shared.need(tmp_path / "build" / "mine" / "work" / NEEDED, KEYS[:1])
    assert {path.name.partition(".")[0] for path in shared.unneeded()} == set(KEYS[2:])


def test_what_somebody_is_at_work_on_is_left(shared: SharedPredictions) -> None:
    found = shared.unneeded()
    with claim(shared.folder, KEYS[1]) as free:
        assert free
        shared.free(found)
    assert there(shared) == {KEYS[1]}
    shared.free(found)
    assert there(shared) == set()


def test_what_is_not_ours_is_never_taken_and_never_mixed_with(tmp_path) -> None:
    theirs = tmp_path / "build" / "predictions"
    (theirs / "jrc_x.zarr").mkdir(parents=True)
    shared = SharedPredictions(theirs)
    with pytest.raises(EnsembleError, match="it holds something else; name another folder with --cache"):
        shared.need(tmp_path / "build" / "mine" / "work" / NEEDED, KEYS)
    assert not (tmp_path / "build" / "mine").exists()
    assert shared.unneeded() == []


def test_torn_files_go(shared: SharedPredictions, tmp_path) -> None:
    shared.need(tmp_path / "build" / "mine" / "work" / NEEDED, KEYS)
    torn = [
        shared.folder / f"{KEYS[0]}.planes.12.3.part",
        shared.folder / f"{KEYS[0]}.zarr" / "0.0.0.abc.partial",
    ]
    for file in torn:
        file.write_bytes(b"half")
    assert shared.unneeded() == torn
    shared.free(torn)
    assert shared.unneeded() == []
    assert there(shared) == set(KEYS)


def test_who_reads_a_prediction_that_is_made_anew_reads_its_values_and_never_zeros(tmp_path) -> None:
    _, grid, em = a_volume(tmp_path, (20, 20, 20))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, inference.card())
    stored = open_prediction(tmp_path / "kept", "shared-all", one)
    stored.array[:] = 51
    stored.mark(one.stored.box)
    reader = stored.of("nuc")
    stored.forget()
    anew = open_prediction(tmp_path / "kept", "shared-all", one)
    assert anew.done_planes(one.stored.box) == 0
    assert np.allclose(reader.probability(one.stored, "linear"), 0.2)
