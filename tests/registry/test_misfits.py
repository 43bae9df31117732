"""Weights of another size are told in one sentence, where one number explains them."""

import pytest
import torch

from registry.misfits import in_one_sentence
from tests.support.networks_small import UNET, card, refusal, unet
from tests.support.small_models import checkpoint


@pytest.mark.parametrize(("classes", "there"), [(("mito", "er", "nuc"), 4), (("mito",), 2)])
def test_another_number_of_classes(classes, there):
    network = unet(out_channels=len(classes))
    found = in_one_sentence("c.pt", network.state_dict(), unet(out_channels=there).state_dict(), len(classes))
    assert found.startswith(f"c.pt: the card names {len(classes)} classes, the network has {there} channels; ")


def test_a_network_that_is_wider():
    found = in_one_sentence(
        "c.pt", unet(num_res_units=1).state_dict(), unet(channels=[8, 16], num_res_units=1).state_dict(), 2
    )
    assert found == "c.pt: the network is 2 times as wide as the card's arguments say; correct them"


def test_what_one_number_does_not_explain():
    expected = unet().state_dict()
    assert in_one_sentence("c.pt", expected, unet(channels=[4, 16]).state_dict(), 2) is None
    assert in_one_sentence("c.pt", expected, {**expected, "more": torch.ones(1)}, 2) is None
    assert in_one_sentence("c.pt", expected, {**expected, next(iter(expected)): torch.ones(2)}, 2) is None


def test_the_register_command_says_so(store, tmp_path):
    described = card(classes=("mito", "er", "nuc"), arguments={k: v for k, v in UNET.items() if k != "out_channels"})
    message = refusal(store.register, checkpoint(tmp_path / "c.pt"), described)
    assert "the card names 3 classes, the network has 2 channels" in message
