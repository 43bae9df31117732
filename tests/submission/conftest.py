"""What tests of submissions share."""

from pathlib import Path

import pytest

from ensemble.submission.writer import pack
from tests.support.small_store import TARGETS, build


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store") / "store"
    build(root, {"unclaimed": {"crop557": ["er"]}})
    return root


@pytest.fixture
def packed(store, tmp_path) -> Path:
    pack(store, tmp_path / "submission.zip", TARGETS)
    return tmp_path / "submission.zip"
