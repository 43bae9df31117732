"""Cards name the toolkit's networks as the toolkit does."""

import torch

from registry import networks, toolkit
from registry.card import TOOLKIT
from tests.support.networks_small import card, refusal


def test_every_network_of_the_toolkit_is_built_by_its_name():
    assert [toolkit.constructor(name).__name__ for name in TOOLKIT] == list(TOOLKIT)


def test_a_card_may_run_the_residual_network_on_patches_or_on_slices():
    arguments = {"ngf": 4, "n_blocks": 1}
    for planes in (None, "zyx"):
        network = networks.new_network(card(architecture="ResNet", arguments=arguments, planes=planes)).eval()
        with torch.no_grad():
            assert network(torch.rand(1, 1, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


def test_a_patch_of_another_size_than_positions_were_learned_for_is_refused():
    described = card(architecture="ViTVNet", arguments={"img_size": [32, 32, 32]}, patch_voxels=64)
    assert "patch_voxels: ViTVNet does not take patches of [64, 64, 64]: " in refusal(
        networks.new_network, described, error=Exception
    )
