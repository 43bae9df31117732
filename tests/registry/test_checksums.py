"""A file is the one that was registered, bit for bit, or it is named."""

import hashlib

import pytest

from ensemble.support.errors import CheckpointError
from registry.checksums import check_sha256, sha256
from tests.support.processes import python


def test_a_file_that_is_as_it_was_passes_and_any_other_is_named(tmp_path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    right = hashlib.sha256(b"some weights").hexdigest()
    assert sha256(path) == right
    check_sha256(path, right)
    path.write_bytes(b"some weightS")
    with pytest.raises(CheckpointError, match=f"weights: damaged or exchanged: .* registered was {right[:12]}"):
        check_sha256(path, right)
    path.unlink()
    with pytest.raises(CheckpointError, match="weights: cannot read the weights"):
        check_sha256(path, right)


def test_a_driver_that_looks_at_weights_loads_no_torch() -> None:
    assert "False" in python("import sys, registry.checksums; print('torch' in sys.modules)").stdout
