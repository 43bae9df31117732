"""Hyper-parameters tell the network, where the weights are of it."""

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from registry import checkpoint, draft
from registry.network_settings import described_by
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import SMALL

TOLD = {"channels": (4, 8), "strides": (2,), "num_res_units": 1, "norm": "batch"}
PLAIN = {"channels": [4, 8], "strides": [2], "num_res_units": 1, "norm": "batch"}


def described(path, settings, prefix="model.", **arguments):
    save_lightning(path, "UNet", prefix=prefix, settings=settings, **{**PLAIN, "out_channels": 3, **arguments})
    return described_by(checkpoint.read(path))


@pytest.mark.parametrize(
    "settings",
    [TOLD, {"model": TOLD, "lr": 1e-3}, {"cfg": {"model": {"name": "UNet", **TOLD}}}, {**TOLD, "out_channels": 3}]
    + [{**TOLD, "loss": nn.BCELoss(), "net": UNet(3, 1, 3, (4, 8), (2,)), "in_channels": 1, "spatial_dims": 3}],
)
def test_a_unet_is_told_by_whatever_mapping_names_its_arguments(tmp_path, settings):
    assert described(tmp_path / "c.ckpt", settings) == {
        "architecture": "UNet",
        "arguments": PLAIN,
        "classes": [None] * 3,
    }


@pytest.mark.parametrize("settings", [{}, {"channels": (4, 16), "strides": (2,)}, {"channels": 4, "strides": "x"}])
def test_what_is_not_the_network_of_the_weights_is_not_believed(tmp_path, settings):
    assert described(tmp_path / "c.ckpt", settings) == {}


def test_a_network_that_is_named_needs_no_more(tmp_path):
    told = {**SMALL["SegResNet"], "architecture": "monai.networks.nets.SegResNet"}
    save_lightning(tmp_path / "c.ckpt", "SegResNet", settings=told, **SMALL["SegResNet"])
    found = described_by(checkpoint.read(tmp_path / "c.ckpt"))
    assert (found["architecture"], found["arguments"]["init_filters"]) == ("SegResNet", 8)


def test_settings_without_end_are_left_alone(tmp_path):
    channels: list = [4, 8]
    for _ in range(60):
        channels = [channels, channels]
    assert described(tmp_path / "c.ckpt", {**TOLD, "channels": channels}) == {}


def test_the_draft_takes_them_and_asks_no_more_for_them(tmp_path):
    described(tmp_path / "c.ckpt", {"model": TOLD, "classes": ["mito", "er", "nuc"]}, prefix="model._orig_mod.")
    made = draft.draft_card(tmp_path / "c.ckpt")
    assert (made.values["architecture"], made.values["arguments"]) == ("UNet", PLAIN)
    assert made.values["classes"] == ["mito", "er", "nuc"]
    assert not {"architecture", "arguments", "classes"} & set(made.asks)
    assert torch.is_tensor(next(iter(checkpoint.read(tmp_path / "c.ckpt").values.values())))
