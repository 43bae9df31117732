"""MedNeXt as published: its sizes, both namings of its tensors, and answers equal to the paper's equations."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks import nets
from networks_small import refusal

from registry import checkpoint, mednext_layouts, networks, weights
from registry.mednext_layouts import BLOCKS


def build(seed: int = 0, architecture: str = "MedNeXtV1", **arguments):
    torch.manual_seed(seed)
    network = networks.build(architecture, {"out_channels": 1, **arguments})
    with torch.no_grad():  # the norms begin as the identity, which would hide what is exchanged
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


# -- an oracle that knows the published names and the equations, and nothing of this package or MONAI


def block(w, name, x, kind="same", residual=True):
    stride = 1 if kind == "same" else 2
    conv = F.conv_transpose3d if kind == "up" else F.conv3d
    width, k = x.shape[1], w[f"{name}.conv1.weight"].shape[-1]
    y = conv(x, w[f"{name}.conv1.weight"], w[f"{name}.conv1.bias"], stride=stride, padding=k // 2, groups=width)
    y = F.group_norm(y, width, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
    y = F.gelu(F.conv3d(y, w[f"{name}.conv2.weight"], w[f"{name}.conv2.bias"]))
    y = F.conv3d(y, w[f"{name}.conv3.weight"], w[f"{name}.conv3.bias"])
    if kind == "same":
        return x + y
    skip = conv(x, w[f"{name}.res_conv.weight"], w[f"{name}.res_conv.bias"], stride=2) if residual else 0
    if kind == "up":
        y = F.pad(y, (1, 0, 1, 0, 1, 0))
        skip = F.pad(skip, (1, 0, 1, 0, 1, 0)) if residual else 0
    return y + skip


def published(w, x, counts):
    def stage(name, x, count):
        for i in range(count):
            x = block(w, f"{name}.{i}", x)
        return x

    def out(i, x):
        return F.conv_transpose3d(x, w[f"out_{i}.conv_out.weight"], w[f"out_{i}.conv_out.bias"])

    x, kept = F.conv3d(x, w["stem.weight"], w["stem.bias"]), []
    for i in range(4):
        kept.append(stage(f"enc_block_{i}", x, counts[i]))
        x = block(w, f"down_{i}", kept[i], "down")
    x, answers = stage("bottleneck", x, counts[4]), []
    for i in (3, 2, 1, 0):
        if f"out_{i + 1}.conv_out.weight" in w:
            answers.insert(0, out(i + 1, x))
        x = stage(f"dec_block_{i}", kept[i] + block(w, f"up_{i}", x, "up"), counts[8 - i])
    return [out(0, x), *answers]


@pytest.mark.parametrize(("size", "kernel"), [("S", 3), ("B", 5), ("M", 3), ("S", 7)])
def test_answers_are_those_of_the_equations(size, kernel):
    network = build(size=size, kernel_size=kernel, init_filters=8, deep_supervision=True)
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        expected = published(network.state_dict(), x, BLOCKS[size])
        assert torch.allclose(network(x), expected[0], atol=1e-5)
        answers = network.train()(x)
    assert len(answers) == len(expected) == 5
    assert all(torch.allclose(a, e, atol=1e-5) for a, e in zip(answers, expected, strict=True))


@pytest.mark.parametrize(("size", "millions"), [("S", 5.55), ("B", 10.53), ("M", 17.55), ("L", 61.78)])
def test_sizes_have_the_published_number_of_parameters(size, millions):
    blank = networks.blank("MedNeXtV1", {"size": size, "kernel_size": 3, "out_channels": 1})
    assert sum(p.numel() for p in blank.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(("kernel", "supervised"), [(3, True), (5, False)])
def test_checkpoints_of_either_naming_load_into_either_network(tmp_path, kernel, supervised):
    told = {"kernel_size": kernel, "deep_supervision": supervised}
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
    name, found = mednext_layouts.described_by({key: tuple(v.shape) for key, v in blank.state_dict().items()})
    again = networks.blank(name, {"out_channels": 3, **found})
    assert name == architecture
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in blank.state_dict().items()}
    assert mednext_layouts.as_named_by(blank.state_dict(), blank.state_dict()).keys() == blank.state_dict().keys()
