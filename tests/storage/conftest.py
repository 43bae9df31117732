"""What tests of EM as a network sees it share."""

import pytest
import torch

from tests.support.inference import tiny_network


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    return tiny_network()
