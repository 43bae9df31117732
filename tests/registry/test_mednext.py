"""MedNeXt as published: its sizes, and answers equal to the paper's equations."""

import pytest
import torch
import torch.nn.functional as F

from registry import networks
from registry.mednext import MedNeXtV1
from registry.mednext_names import BLOCKS
from tests.support.mednext import build


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
    network = build(size=size, kernel_size=kernel, init_filters=4, deep_supervision=True)
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


def test_numbers_that_no_network_of_nine_stages_has_are_refused():
    with pytest.raises(ValueError, match="blocks has 2 entries where the network has 9 stages"):
        MedNeXtV1(blocks=[1, 1])
    with pytest.raises(ValueError, match="size 'XL' is none of S, B, M, L"):
        MedNeXtV1(size="XL")


@pytest.mark.parametrize("name", ["residual", "residual_resampling", "grn", "norm"])
def test_what_no_tensor_tells_must_be_said(name):
    with pytest.raises(ValueError, match=rf"{name} .*say which the network was built with"):
        MedNeXtV1(**{name: None})


def test_it_answers_at_five_scales_only_in_training():
    network = MedNeXtV1(init_filters=4, out_channels=2, deep_supervision=True, blocks=[1] * 9)
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert [tuple(answer.shape[2:]) for answer in network.train()(x)] == [(n,) * 3 for n in (32, 16, 8, 4, 2)]
        assert network.eval()(x).shape == (1, 2, 32, 32, 32)


@pytest.mark.parametrize(("size", "kernel"), [("B", 3), ("S", 5)])
def test_torch_compiles_it_as_one_graph(size, kernel):
    network = build(size=size, kernel_size=kernel, init_filters=4).eval()
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.allclose(torch.compile(network, fullgraph=True, backend="eager")(x), network(x), atol=1e-5)
