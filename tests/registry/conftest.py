"""What tests of the registry share."""

import pathlib

import pytest
import torch

from registry import server_trouble
from registry.store import Registry
from tests.support import mlflow_server
from tests.support.empty_registry import store_in
from tests.support.processes import NEVER_S


@pytest.fixture
def saved(tmp_path):
    """Write ``content`` with torch.save; gives the path."""

    def saved(content, name="c.pt", **options) -> pathlib.Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return saved


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path) -> Registry:
    """A store of its own for each test, in a folder with a space in its name."""
    return store_in(tmp_path / "a store")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of an MLflow server process on loopback that serves artifacts too."""
    with pytest.MonkeyPatch.context() as patched, mlflow_server.started(tmp_path_factory.mktemp("server")) as running:
        patched.setattr(server_trouble, "ANSWER_WITHIN_S", NEVER_S)  # a busy server is there
        yield running.address


@pytest.fixture(params=["sqlite", "server"])
def any_store(request) -> Registry:
    if request.param == "server":
        return Registry(request.getfixturevalue("server"))
    return request.getfixturevalue("store")
