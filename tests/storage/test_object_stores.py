"""Where URLs lead, with which patience, and that the library for it is loaded for them alone."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ensemble.storage.nodes import exist
from ensemble.storage.object_stores import open_remote
from ensemble.support.errors import VolumeError
from tests.support.bucket import forget_aws, free_port
from tests.support.processes import python


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    forget_aws(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("url", "root", "path", "lists"),
    [
        ("s3://em", "s3://em", "", True),
        ("s3://em/a/b.zarr", "s3://em", "a/b.zarr", True),
        ("https://em.s3.amazonaws.com/a", "https://em.s3.amazonaws.com", "a", True),
        ("https://s3.eu-west-1.amazonaws.com/em/a/b", "https://s3.eu-west-1.amazonaws.com/em", "a/b", True),
        ("gs://em/a", "gs://em", "a", True),
        ("https://host/a%20b/c/", "https://host", "a b/c", False),
        ("http://host:81/a", "http://host:81", "a", False),
    ],
)
def test_a_url_is_a_bucket_or_host_and_a_path(url, root, path, lists):
    remote = open_remote(url)
    assert (remote.root, remote.path, remote.lists) == (root, path, lists)
    assert open_remote(f"{root}/other").store is remote.store


@pytest.mark.parametrize("url", ["s3://", "s3:///a", "https://s3.amazonaws.com"])
def test_a_url_without_a_bucket_is_told(url):
    with pytest.raises(VolumeError, match="names no bucket"):
        open_remote(url)


def test_credentials_come_from_the_chosen_profile_and_attempts_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id=AKI\naws_secret_access_key=s3cr3t\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    store = open_remote("s3://lab").store
    assert store.config["access_key_id"] == "AKI"
    assert store.retry_config["max_retries"] == 2
    assert "s3cr3t" not in repr(store)
    assert open_remote("s3://open").store.config.get("skip_signature") is None
    monkeypatch.delenv("AWS_PROFILE")
    assert open_remote("s3://open").store.config["skip_signature"]


class _Closed(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.headers["Authorization"] == "Basic YW5uOnMzY3IzdC8=" else 401)
        self.send_header("Content-Length", "3")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_name_and_password_in_a_url_are_given_to_its_host():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Closed) as server:
        Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        assert exist(f"http://ann:s3cr3t%2F@{host}/a", ["b"]) == [True]
        with pytest.raises(VolumeError, match="credentials are asked for") as told:
            exist(f"http://ann:other@{host}/a", ["b"])
        assert "other" not in str(told.value)
        server.shutdown()


FORK = """
import os
from ensemble.storage import EM
from ensemble.support import VolumeError

def ask():
    try:
        EM("s3://em").pyramid("d")
    except VolumeError as error:
        print(error, flush=True)

ask()
child = os.fork()
os.waitpid(child, 0) if child else ask()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process is forked here")
def test_a_forked_process_is_told_rather_than_left_waiting(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    parent, child = python(FORK).stdout.splitlines()
    assert "nothing answers there" in parent
    assert "cannot be read by several processes here; copy it to a folder" in child


def test_files_need_no_library_for_urls():
    loaded = python("import sys, ensemble.cli, ensemble.storage as s; s.EM('.'); print('obstore' in sys.modules)")
    assert loaded.stdout == "False\n"
