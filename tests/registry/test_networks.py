"""Networks are built as named, and what does not fit is told before memory is taken."""

import inspect

import pytest
import torch
from monai.networks import nets

from ensemble.support.errors import CardError
from registry import networks
from registry.card import ARCHITECTURES
from tests.support.networks_small import HAS_EINOPS, NNUNET, SMALL, UNET, card, patch_of, refusal


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_answers_with_one_tensor_of_the_patch(architecture):
    if architecture == "SwinUNETR" and not HAS_EINOPS:
        pytest.skip("MONAI's SwinUNETR runs only with einops")
    network = networks.build(architecture, SMALL[architecture]).eval()
    assert type(network).__name__ == architecture
    patch = patch_of(architecture)
    with torch.no_grad():
        answer = network(torch.rand(1, 1, *patch))
    assert isinstance(answer, torch.Tensor)
    assert answer.shape == (1, 2, *patch)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_torch_compiles_every_architecture_as_one_graph_with_the_same_answers(architecture):
    torch.manual_seed(0)
    network = networks.build(architecture, SMALL[architecture])
    patches = torch.rand(2, 1, *patch_of(architecture))
    with torch.no_grad():
        # lowering its graph takes longer than all the others'
        backend = "eager" if architecture == "SwinUNETR" else "aot_eager"
        compiled = torch.compile(network.eval(), fullgraph=True, backend=backend)
        assert torch.allclose(compiled(patches), network(patches), atol=1e-5)
    if architecture == "SwinUNETR":
        return  # in training it is the same graph, and takes as long again
    compiled = torch.compile(network.train(), fullgraph=True, backend="eager")
    answers, expected = (a if isinstance(a, list | tuple) else [a] for a in (compiled(patches), network(patches)))
    assert len(answers) == len(expected)
    assert all(torch.allclose(a, e, atol=1e-5) for a, e in zip(answers, expected, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_blank_network_has_the_same_keys_and_shapes_and_no_memory(architecture):
    blank = networks.blank(architecture, SMALL[architecture])
    built = networks.build(architecture, SMALL[architecture])
    assert all(value.is_meta for value in blank.state_dict().values())
    assert {k: (v.shape, v.dtype) for k, v in blank.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in built.state_dict().items()
    }
    assert not any(value.is_meta for value in [*built.parameters(), *built.buffers()])


def test_tensors_are_counted_while_they_live():
    with networks._Alive() as alive:
        first = torch.zeros(100)  # 400 bytes
        second = first + 1  # 800
        second += 1
        first = second.view(10, 10)[1:] * 2  # 1,160; then the zeros go
        assert alive.most_bytes == 1160
        del second
        third = torch.cat([first, first])  # 360 + 720
        assert alive.most_bytes == 1160
        fourth = torch.cat([third, third])  # and 1,440
    assert alive.most_bytes == 360 + 720 + fourth.numel() * 4


@pytest.mark.skipif(HAS_EINOPS, reason="einops is installed")
def test_a_missing_package_is_named():
    swin = card(architecture="SwinUNETR", arguments=SMALL["SwinUNETR"], patch_voxels=64)
    assert "einops" in refusal(networks.new_network, swin)


def test_monai_names_the_arguments_the_registry_relies_on():
    for architecture in ("UNet", "DynUNet", "SegResNet", "SwinUNETR", "MedNeXt"):
        known = inspect.signature(getattr(nets, architecture)).parameters
        assert {"spatial_dims", "in_channels", "out_channels"} <= set(known)


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("Unet", UNET, "architecture: unknown network 'Unet'; did you mean 'UNet'?"),
        (
            "UNet",
            {**UNET, "chanels": [4]},
            "arguments.chanels: UNet has no such argument; did you mean 'channels'?",
        ),
        ("UNet", {"channels": [4, 8], "out_channels": 2}, "arguments: UNet needs the argument 'strides'"),
        (
            "UNet",
            {**UNET, "channels": [4]},
            "arguments: UNet refuses them: the length of `channels` should be no less than 2",
        ),
        ("UNet", {**UNET, "channels": [4, 10**9]}, "arguments.channels[1]: 1000000000 is out of bounds"),
        ("UNet", {**UNET, "channels": [65536] * 4, "strides": [2] * 3}, "more than 2e+09 parameters"),
        ("SegResNet", {"blocks_down": [60000], "blocks_up": []}, "or 5000 tensors; make it smaller"),
        ("SwinUNETR", {**SMALL["SwinUNETR"], "depths": [1] * 1000}, "1000 entries"),
        ("SegResNet", {"norm": ["nonsense", {}]}, "arguments: SegResNet refuses them: "),
        ("MedNeXt", {"blocks_down": "many"}, "arguments: MedNeXt refuses them: "),
        ("MedNeXtV1", {"size": "XL"}, "arguments: MedNeXtV1 refuses them: size 'XL' is none of S, B, M, L"),
        ("MedNeXtV1", {"blocks": [1, 1]}, "blocks has 2 entries where the network has 9 stages"),
        ("PlainConvUNet", {**SMALL["PlainConvUNet"], "norm_op": "os.system"}, "norm_op: 'os.system' is no layer"),
        ("PlainConvUNet", {**SMALL["PlainConvUNet"], "conv_op": "Conv2d"}, "conv_op: Conv2d is of a network of 2 axes"),
        ("ResidualEncoderUNet", NNUNET, "needs the argument 'n_blocks_per_stage'"),
        ("UNet", {**UNET, "kernel_size": -3}, "arguments: UNet refuses them: "),
    ],
)
def test_wrong_arguments_are_told_in_one_line_before_memory_is_taken(architecture, arguments, message):
    assert message in refusal(networks.build, architecture, arguments, error=CardError)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("mito",)}, "arguments.out_channels: must be 1, not 2: the card lists 1 class"),
        ({"arguments": {**UNET, "in_channels": 3}}, "arguments.in_channels: must be 1, not 3: EM has"),
        ({"arguments": {**UNET, "spatial_dims": 2}}, "arguments.spatial_dims: must be 3, not 2"),
        ({"patch_voxels": (16, 15, 16)}, "patch_voxels: UNet does not take patches of [16, 15, 16]: "),
        ({"patch_voxels": (16, 15, 16)}, "; use [16, 16, 16]"),
    ],
)
def test_a_card_that_does_not_fit_its_network(changes, message):
    text = refusal(networks.new_network, card(**changes), error=CardError)
    assert text.startswith("card m: ")
    assert message in text


def test_channels_follow_from_the_classes_if_the_card_does_not_say():
    arguments = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    three = card(architecture="SegResNet", arguments=arguments, classes=("mito", "nuc", None))
    with torch.no_grad():
        assert networks.new_network(three).eval()(torch.rand(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


@pytest.mark.parametrize(
    ("architecture", "argument"), [("SwinUNETR", {"img_size": [64, 64, 64]}), ("UNet", {"dimensions": 3})]
)
def test_an_argument_that_monai_has_removed_means_nothing(architecture, argument):
    assert argument.keys().isdisjoint(networks.parameters_of(architecture))
    plain = networks.blank(architecture, SMALL[architecture]).state_dict()
    assert networks.blank(architecture, {**SMALL[architecture], **argument}).state_dict().keys() == plain.keys()
