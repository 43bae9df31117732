"""What tests on a cluster share: a SLURM of one node, and a folder for what its jobs say."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.one_node_slurm import Slurm, one_node_slurm, what_is_lacking


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """One that is up while tests want it. They take minutes and are skipped unless they are asked for."""
    if not os.environ.get("CLUSTER_TESTS"):
        pytest.skip("takes minutes: make test-cluster")
    lacking = what_is_lacking()
    if lacking is not None:
        pytest.skip(f"no SLURM can be started here: {lacking}")
    with one_node_slurm() as started:
        yield started


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    """A folder for what jobs say, which is shown of a test that fails."""
    folder = tmp_path / "logs"
    folder.mkdir()
    yield folder
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"--- {file.name}\n{file.read_text(errors='replace')[-5000:]}")
