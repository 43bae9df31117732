"""What tests of training share."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.support.annotated import noise, write_em, write_truth


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """EM of dark blobs (mito) in noise, annotated in crop 1 and 2; er is the left half, annotated in crop 1."""
    root = tmp_path_factory.mktemp("data")
    field = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((32, 32, 64)), 3)
    mito = field > 0.05
    left = np.broadcast_to(np.arange(64) % 32 < 16, mito.shape)
    grey = np.where(mito, 90, 170) + np.where(left, 40, 0) + noise(*mito.shape) / 10
    write_em(root, grey.astype(np.uint8))
    write_truth(root, "mito", mito[..., :32].astype(np.uint8))
    write_truth(root, "er", left[..., :32].astype(np.uint8))
    write_truth(root, "mito", mito[..., 32:].astype(np.uint8), origin_nm=(0, 0, 256), crop="2")
    return root
