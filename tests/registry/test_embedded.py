"""The sqlite file: made whole or not at all, and whole again wherever its folder is carried."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import embedded
from registry.store import Registry
from registry.verify import verify_model
from tests.support.empty_registry import store_in
from tests.support.processes import Forked
from tests.support.small_models import card, checkpoint, refusal
from tests.support.two_versions import CPU

ODD = "100%41 é?#&+;'"


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_an_address_gives_back_the_file_whatever_its_folders_are_called(names):
    database = Path("/", *names)
    assert embedded.database_at(embedded.address_of(database)) == database.absolute()


@pytest.mark.parametrize("address", ["http://x:5000", "postgresql://u:p@x/db", "sqlite://", "mlruns"])
def test_other_stores_have_no_file(address):
    assert embedded.database_at(address) is None


@pytest.mark.parametrize("carry", [shutil.move, shutil.copytree])
def test_a_registry_that_is_moved_or_copied_is_whole_under_any_name(tmp_path, carry):
    old, new = tmp_path / "old", tmp_path / ODD
    first = store_in(old).register(checkpoint(tmp_path / "c.pt"), card(), alias="champion")
    run_id = store_in(old).runs.record("ensemble builds", "b", params={}, metrics={}, tags={})
    carry(old, new)
    shutil.rmtree(old, ignore_errors=True)

    store = store_in(new)
    assert store.tracking_uri.endswith("100%2541 é%3F#&+;'/mlflow.db")
    version = store.resolve("models:/mito-l-4nm@champion")
    assert (version.sha256, store.broken) == (first.sha256, [])
    assert verify_model(store, version, CPU).holds
    store.runs.add(run_id, {}, [tmp_path / "c.pt"])
    assert not old.exists(), "nothing is written where the registry was"
    assert next(new.glob("artifacts/*/artifacts/c.pt")).is_file()
    fetched = store._mlflow.client.download_artifacts(first.run_id, "model/card.yaml", str(tmp_path))
    assert Path(fetched).is_file(), "MLflow itself finds them too"


def test_a_version_whose_files_are_gone_is_told_as_that(store, tmp_path):
    store.register(checkpoint(tmp_path / "c.pt"), card())
    shutil.rmtree(tmp_path / "a store" / "artifacts")
    message = refusal(store.versions, "mito-l-4nm")
    assert message.startswith("models:/mito-l-4nm/1: ")
    assert "the registry lists this file, but it is not there" in message


def _ours(database: Path) -> None:
    Registry(embedded.address_of(database)).runs.record("ensemble builds", "b", params={}, metrics={}, tags={})


def _of_mlflow(database: Path) -> None:
    from mlflow import MlflowClient

    database.parent.mkdir(parents=True)
    MlflowClient(embedded.address_of(database)).search_experiments()


def _killed_at(statement: int, make: Callable[[Path], None], database: Path) -> None:
    """Make the tables, and be killed at that many statements of SQL."""
    from sqlalchemy import Engine, event

    seen = []

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*arguments: object) -> None:
        seen.append(arguments)
        if len(seen) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    make(database)


def test_a_process_killed_while_it_makes_the_tables_leaves_no_registry(tmp_path):
    database = tmp_path / "mlruns" / "mlflow.db"
    for statement in (60, 200):
        process = Forked(_killed_at, statement, _ours, database)
        process.ended()
        assert process.returncode == -signal.SIGKILL
        assert Registry(embedded.address_of(database)).versions() == []
        assert not database.exists()
    store = Registry(embedded.address_of(database))
    assert store.runs.record("ensemble builds", "b", params={}, metrics={}, tags={})
    assert not database.with_name("mlflow.db.new").exists()


def test_tables_that_mlflow_was_killed_at_are_made_anew_where_nothing_is_kept(tmp_path):
    database = tmp_path / "mlruns" / "mlflow.db"
    process = Forked(_killed_at, 260, _of_mlflow, database)
    process.ended()
    assert process.returncode == -signal.SIGKILL
    assert embedded.holds_nothing(database)
    _ours(database)
    assert not embedded.holds_nothing(database)
    assert Registry(embedded.address_of(database)).versions() == []


def _no_folder(folder: Path) -> str:
    folder.joinpath("artifacts").write_text("")
    return f"{folder / 'artifacts'} is no folder"


def _no_database(folder: Path) -> str:
    folder.joinpath("mlflow.db").write_text("nothing of the kind" * 100)
    return "file is not a database"


@pytest.mark.parametrize("spoil", [_no_folder, _no_database])
def test_what_cannot_be_written_is_told_before_and_when_it_is_tried(store, tmp_path, spoil):
    assert store.runs.write_fault() is None
    fault = spoil(tmp_path / "a store")
    assert store.runs.write_fault() == (
        f"{tmp_path}/a store/mlflow.db: the model registry cannot be written: {fault}; make it writable"
    )
    assert fault in refusal(store.runs.record, "ensemble builds", "b", params={}, metrics={}, tags={})


def test_a_registry_of_someone_else_is_read_and_not_written(store, tmp_path):
    version = store.register(checkpoint(tmp_path / "c.pt"), card())
    nobody = 65534
    if os.geteuid() != 0:
        pytest.skip("only root can become someone else")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    os.setresuid(nobody, nobody, 0)
    try:
        theirs = Registry(store.tracking_uri)
        assert theirs.versions() == [version]
        assert "is read-only" in theirs.runs.write_fault()
        assert "is read-only; make it writable" in refusal(theirs.set_alias, version.name, "best", 1, "why")
        os.setresuid(0, 0, 0)
        (tmp_path / "a store").chmod(0o700)
        os.setresuid(nobody, nobody, 0)
        assert "is read-only" in theirs.runs.write_fault()
        assert "the model registry cannot be read: Permission denied" in refusal(theirs.versions)
    finally:
        os.setresuid(0, 0, 0)


def test_a_registry_that_is_just_being_written_can_be_written(store, tmp_path):
    other = sqlite3.connect(tmp_path / "a store" / "mlflow.db")
    other.execute("BEGIN IMMEDIATE")
    assert store.runs.write_fault() is None
    other.close()
