"""A server that is no help: one line each, soon, whatever it answers, and nothing that others chatter."""

import socket

import pytest

from ensemble.support.errors import RegistryError
from registry.runs import BUILDS
from registry.server_trouble import silence_at
from registry.store import Registry
from tests.support import troubled_server as trouble
from tests.support.troubled_server import troubled

NO_MLFLOW = "what answers there is no MLflow server, or a page in front of it"
DOWN = "the MLflow server does not answer"
TROUBLES = {
    "401": (trouble.page(401), "does not know you (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    "403": (trouble.page(403), "does not let you do this (403); ask whoever runs it"),
    "404": (trouble.page(404), "no MLflow server is there (404); correct MLFLOW_TRACKING_URI"),
    "429": (trouble.page(429), "has too much to do (429); wait a few minutes"),
    **{
        status: (trouble.page(int(status)), f"is in trouble ({status}); its own log says why")
        for status in ("500", "502", "503", "504")
    },
    "a page": (trouble.page(200), NO_MLFLOW),
    "bytes": (trouble.json("\xff\x00"), NO_MLFLOW),
    "a list": (trouble.json("[1, 2]"), NO_MLFLOW),
    "other JSON": (trouble.json('{"registered_models": 3, "model_versions": 3, "experiment": 3}'), NO_MLFLOW),
    "refused in words": (trouble.json('{"error_code": "PERMISSION_DENIED", "message": "no\\u001b"}', 403), "no\\x1b"),
    "dropped": (trouble.dropped, DOWN),
    "cut": (trouble.cut, DOWN),
    "silent": (trouble.silent, "does not answer in time; try the same command again, or set a longer MLFLOW_HTTP"),
    "round and round": (trouble.round_and_round, DOWN),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


def _record(store: Registry) -> None:
    store.runs.record(BUILDS, "b", params={"a": "1"}, metrics={"m": 1.0}, tags={})


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("use", [lambda store: store.resolve("models:/m@champion"), _record], ids=["read", "write"])
def test_any_trouble_is_one_line_that_says_what_to_do(kind, use, capfd):
    answer, said = TROUBLES[kind]
    with troubled(answer) as server:
        store = Registry(f"http://ann:s3cr3t@127.0.0.1:{server.server_port}")
        for _ in range(1 if kind == "silent" else 2):
            with pytest.raises(RegistryError) as refused:
                use(store)
            message = str(refused.value)
            assert message.startswith(f"http://127.0.0.1:{server.server_port}: ")
            assert said in message
            assert message.isprintable() and "s3cr3t" not in message and len(message) < 300
        assert said in (store.runs.write_fault() or "")
        redirects = 31 if kind == "round and round" else 1
        assert server.requests <= 3 * 3 * redirects, "each time once, and twice again"
    assert capfd.readouterr() == ("", "")


def test_a_server_that_only_lets_read_says_so_when_it_is_written_to():
    refuse = trouble.page(403)
    with troubled(lambda asked: refuse(asked) if asked.command == "POST" else asked.say(200, b"{}")) as server:
        store = Registry(f"http://127.0.0.1:{server.server_port}")
        assert store.versions() == []
        with pytest.raises(RegistryError, match=r"does not let you do this \(403\)"):
            _record(store)


def test_a_server_that_says_nothing_has_recorded_nothing():
    with troubled(trouble.json("{}")) as server, pytest.raises(RegistryError, match="no MLflow server"):
        _record(Registry(f"http://127.0.0.1:{server.server_port}"))


def test_who_is_not_there_is_known_at_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        silence = silence_at(f"http://u:s3cr3t@127.0.0.1:{closed.getsockname()[1]}")
    assert silence == (
        "the MLflow server does not answer ([Errno 111] Connection refused); start it, or correct MLFLOW_TRACKING_URI"
    )
    assert "does not answer" in (silence_at("http://nobody.invalid") or "")
    assert "does not answer" in (silence_at("http://[") or "")
    with troubled(trouble.page(500)) as server:
        assert silence_at(f"http://127.0.0.1:{server.server_port}/") is None
        assert silence_at(f"http://127.0.0.1:{server.server_port}/below") is None
