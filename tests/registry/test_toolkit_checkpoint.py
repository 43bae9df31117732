"""The names and shapes of tensors tell which network of the toolkit they are of."""

import pytest
import torch

from registry import checkpoint, networks
from registry.toolkit_checkpoint import Description, described_by
from tests.support.networks_small import refusal, unet

RESNET = {"ngf": 4, "n_blocks": 2, "activation": "ReLU", "n_downsampling": 2, "norm_layer": "instance"}


def described(path, architecture, arguments, dimensions=3, prefix="", **more) -> Description:
    every = {"spatial_dims": dimensions, "out_channels": 3, **arguments, **more}
    state = networks.build(architecture, every).state_dict()
    torch.save({prefix + key: value for key, value in state.items()}, path)
    return described_by(checkpoint.read(path))


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize(
    ("architecture", "arguments", "dimensions"),
    [
        ("UNet_2D", {"trilinear": False, "init_filters": 4}, 2),
        ("UNet_2D", {"trilinear": True, "init_filters": 4}, 2),
        ("UNet_3D", {"trilinear": True, "init_filters": 4}, 3),
        ("UNet_3D", {"trilinear": False, "init_filters": 8}, 3),
        ("ResNet", {**RESNET, "use_dropout": False, "padding_type": "reflect"}, 2),
        ("ResNet", {**RESNET, "use_dropout": True, "padding_type": "reflect"}, 3),
        ("ResNet", {**RESNET, "use_dropout": True, "padding_type": "zeros", "norm_layer": "batch"}, 3),
        ("ResNet", {**RESNET, "use_dropout": False, "padding_type": "zeros", "n_downsampling": 3}, 3),
        ("ViTVNet", {"img_size": [64, 64, 64]}, 3),
    ],
)
def test_a_network_is_described_as_it_was_built(tmp_path, architecture, arguments, dimensions, prefix):
    found = described(tmp_path / "c.pth", architecture, arguments, dimensions, prefix)
    assert (found.values["architecture"], found.values["arguments"]) == (architecture, arguments)
    assert found.values["classes"] == [None] * 3
    assert found.values.get("planes") == ("zyx" if dimensions == 2 else None)


def test_what_no_tensor_tells_is_asked(tmp_path):
    padded = described(tmp_path / "c.pth", "ResNet", {**RESNET, "padding_type": "replicate"})
    assert "no tensor tells padding_type (reflect, or replicate) and activation (ReLU" in padded.asks["arguments"]
    bare = described(tmp_path / "c.pth", "ResNet", {**RESNET, "padding_type": "zeros"})
    assert "padding_type (zeros, or valid, which is not supported)" in bare.asks["arguments"]
    assert (
        "another with the same 8 positions"
        in described(tmp_path / "c.pth", "ViTVNet", {"img_size": [64, 64, 64]}).asks["arguments"]
    )


def test_other_networks_are_left_to_others(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "unet.pt")
    assert described_by(checkpoint.read(tmp_path / "unet.pt")) == Description()
    state = networks.build("UNet_3D", {"init_filters": 4}).state_dict()
    torch.save({**state, "inc.double_conv.6.weight": torch.ones(4)}, tmp_path / "more.pt")
    assert described_by(checkpoint.read(tmp_path / "more.pt")) == Description()
    assert described(tmp_path / "flat.pt", "ViTVNet", {"img_size": [32, 64, 32]}) == Description()


def test_a_network_of_several_inputs_is_refused(tmp_path):
    message = refusal(described, tmp_path / "c.pth", "UNet_3D", {"init_filters": 4, "in_channels": 2})
    assert message == f"{tmp_path / 'c.pth'}: a network of 2 input channels; EM has 1"
