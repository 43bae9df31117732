"""How the registry reaches MLflow: the embedded store, a server, and what answers to neither."""

import os
import socket

import pytest

from registry import server_trouble
from registry.checksums import sha256
from registry.connection import SETTINGS, Connection
from registry.store import Registry
from tests.support.small_models import card, checkpoint, refusal


@pytest.mark.slow
def test_a_damaged_copy_of_a_servers_file_is_fetched_anew(server, tmp_path):
    store = Registry(server)
    version = store.register(checkpoint(tmp_path / "c.pt"), card("refetch"))
    local = store.weights(version)
    assert local.is_relative_to(tmp_path / "cache")
    local.write_bytes(b"damaged")
    assert sha256(store.weights(version)) == version.sha256


def test_reading_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Registry()
    assert store.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert store.versions() == []
    assert "nothing is registered yet" in refusal(store.resolve, "models:/mito@champion")
    assert "nothing is registered yet" in refusal(store.versions, "mito")
    assert not (tmp_path / "mlruns").exists()


def test_the_environment_names_the_store_unless_an_argument_does(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org:5000")
    assert Registry().tracking_uri == "http://example.org:5000"
    assert Registry("sqlite:///other.db").tracking_uri == "sqlite:///other.db"


def test_a_server_that_is_not_there_is_told_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(server_trouble, "ANSWER_WITHIN_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes the connection and never answers
        gone = "http://user:secret@127.0.0.1:9"
        for address in (gone, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            message = refusal(Registry(address).versions)
            assert "the MLflow server does not answer" in message
            assert "secret" not in message


def test_stores_that_are_none_are_told_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    assert "file is not a database" in refusal(Registry(f"sqlite:///{tmp_path}/mlflow.db").versions)
    for folder in (str(tmp_path / "mlruns"), f"file:{tmp_path}/mlruns"):
        assert "keeps no registry in plain folders" in refusal(Registry(folder).versions)
    assert "failed" in refusal(Registry("nonsense://x").versions)


def test_what_is_set_for_mlflow_stays_as_it_is(monkeypatch):
    for number, name in enumerate(SETTINGS):
        monkeypatch.setenv(name, str(number))
    with Connection("sqlite:///nowhere.db").answering():
        assert [os.environ[name] for name in SETTINGS] == [str(number) for number in range(len(SETTINGS))]
