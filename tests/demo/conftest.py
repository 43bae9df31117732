"""What tests of the phantom share."""

from pathlib import Path

import pytest

from ensemble.demo import dataset as phantom
from tests.support.small_phantom import small_sample


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("small")
    phantom.write_samples(root, [small_sample()], seed=3)
    return root
