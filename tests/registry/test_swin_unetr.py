"""SwinUNETR is MONAI's, whatever it says of sizes that do not fit."""

import pytest
import torch
from monai.networks import nets

from registry.swin_unetr import SwinUNETR
from tests.support.networks_small import SMALL


def test_answers_are_those_of_monais_network():
    arguments = {"in_channels": 1, **SMALL["SwinUNETR"]}
    ours, theirs = SwinUNETR(**arguments).eval(), nets.SwinUNETR(**arguments).eval()
    ours.load_state_dict(theirs.state_dict())
    patch = torch.rand(1, 1, 32, 32, 64)
    with torch.no_grad():
        assert torch.equal(ours(patch), theirs(patch))


def test_a_size_that_does_not_fit_is_told():
    network = SwinUNETR(in_channels=1, **SMALL["SwinUNETR"])
    with pytest.raises(ValueError, match=r"every length of \[32, 32, 48\] must be a multiple of 32"):
        network(torch.rand(1, 1, 32, 32, 48))
