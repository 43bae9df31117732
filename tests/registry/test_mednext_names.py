"""Both namings of MedNeXt's tensors: either loads into either, and shapes tell the architecture."""

import pytest
import torch
from monai.networks import nets

from registry import checkpoint, networks, weights
from registry import mednext_names as mednext_layouts
from tests.support.mednext import build
from tests.support.networks_small import refusal


@pytest.mark.parametrize(("kernel", "supervised"), [(3, True), (5, False)])
def test_checkpoints_of_either_naming_load_into_either_network(tmp_path, kernel, supervised):
    told = {"kernel_size": kernel, "deep_supervision": supervised, "init_filters": 8}
    ours = build(1, size="S", **told)
    monai = build(2, "MedNeXt", use_residual_connection=True, **told)
    x = torch.rand(1, 1, 32, 32, 32)
    for source, target in ((ours, monai), (monai, ours), (ours, ours), (monai, monai)):
        state = {f"model.net.{key}": value for key, value in source.state_dict().items()}
        if source is ours:
            state["model.net.dummy_tensor"] = torch.ones(1)  # as the authors' code saves it
        torch.save({"state_dict": state}, tmp_path / "c.ckpt")
        blank = networks.blank(type(target).__name__, {"out_channels": 1, **_arguments(target, told)})
        fitted = weights.fit(checkpoint.read(tmp_path / "c.ckpt"), blank)
        network = build(3, type(target).__name__, **_arguments(target, told))
        network.load_state_dict(fitted)
        with torch.no_grad():
            assert torch.equal(network(x), source(x))


def _arguments(network, told):
    return {**told, "use_residual_connection": True} if isinstance(network, nets.MedNeXt) else {**told, "size": "S"}


def test_the_other_libraries_network_of_a_larger_size_is_told_apart(tmp_path):
    torch.save(networks.build("MedNeXtV1", {"size": "B", "out_channels": 1}).state_dict(), tmp_path / "b.pt")
    arguments = {"out_channels": 1, "kernel_size": 3, "use_residual_connection": True, "bottleneck_expansion_ratio": 4}
    arguments |= {"encoder_expansion_ratio": [2, 3, 4, 4], "decoder_expansion_ratio": [4, 4, 3, 2]}
    read = checkpoint.read(tmp_path / "b.pt")
    message = refusal(weights.fit, read, networks.blank("MedNeXt", arguments))
    assert "the published sizes B, M and L are MedNeXtV1" in message
    supervised = networks.blank("MedNeXtV1", {"size": "B", "out_channels": 1, "deep_supervision": True})
    assert "deep supervision on or off" in refusal(weights.fit, read, supervised)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("MedNeXtV1", {"size": "L", "kernel_size": 7, "deep_supervision": True}),
        ("MedNeXtV1", {"size": "M", "kernel_size": 3, "deep_supervision": False, "residual_resampling": False}),
        ("MedNeXtV1", {"expansion_ratios": [2] * 9, "blocks": [1] * 9, "init_filters": 8}),
        ("MedNeXtV1", {"size": "S", "grn": True, "decoder_kernel_size": 5}),
        ("MedNeXt", {"global_resp_norm": True, "kernel_size": 3, "use_residual_connection": True}),
        (
            "MedNeXt",
            {
                "encoder_expansion_ratio": [2, 3, 4, 4],
                "bottleneck_expansion_ratio": 4,
                "decoder_expansion_ratio": [4, 4, 3, 2],
                "use_residual_connection": True,
                "blocks_down": [3, 4, 4, 4],
                "blocks_bottleneck": 4,
                "blocks_up": [4, 4, 4, 3],
                "kernel_size": 5,
                "deep_supervision": True,
            },
        ),
    ],
)
def test_shapes_tell_the_architecture_and_its_arguments(architecture, arguments):
    blank = networks.blank(architecture, {"out_channels": 3, **arguments})
    found = mednext_layouts.described_by({key: tuple(v.shape) for key, v in blank.state_dict().items()})
    again = networks.blank(found.architecture, {"out_channels": 3, **found.arguments})
    assert found.architecture == architecture
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in blank.state_dict().items()}
    assert mednext_layouts.as_named_by(blank.state_dict(), blank.state_dict()).keys() == blank.state_dict().keys()
