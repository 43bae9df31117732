"""A 2D network over the slices of a patch answers as a written-out loop over them does."""

import numpy as np
import pytest
import torch

from ensemble.support.errors import CardError
from registry import checkpoint, draft, networks, planes, weights
from registry.packing import pack
from registry.version_folder import WEIGHTS
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import UNET, card, refusal, unet

SHAPE = (24, 16, 40)
GREY = np.random.default_rng(0).random(SHAPE, np.float32)


def sliced_card(axes="zyx", activation="sigmoid", **changes):
    return card(planes=axes, activation=activation, patch_voxels=SHAPE, **changes)


def probabilities_by_slice(network, axes, activation) -> np.ndarray:
    """Each slice by itself, activated, put where it came from; then the mean of the axes."""
    of_axes = []
    for axis in ("zyx".index(name) for name in axes):
        answers = []
        for slice_yx in np.moveaxis(GREY, axis, 0):
            outputs = network(torch.from_numpy(slice_yx.copy())[None, None])[0].double().numpy()
            if activation == "sigmoid":
                outputs = 1 / (1 + np.exp(-outputs))
            if activation == "softmax":
                outputs = np.exp(outputs) / np.exp(outputs).sum(axis=0)
            answers.append(outputs)
        of_axes.append(np.stack(answers, axis=axis + 1))
    return np.mean(of_axes, axis=0)


@pytest.mark.parametrize("axes", ["zyx", "zx", "z", "y", "x"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_probabilities_are_those_of_a_loop_over_slices(axes, activation):
    torch.manual_seed(0)
    network = networks.new_network(sliced_card(axes, activation)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)  # so that probabilities reach from 0 to 1
        found = planes.activate(network(torch.from_numpy(GREY)[None, None]), activation)[0].numpy()
        expected = probabilities_by_slice(planes.sliced(network), axes, activation)
    assert np.abs(found - expected).max() < 1e-5
    assert np.ptp(expected) > 0.9


def test_a_registered_network_of_slices_is_one_of_patches(tmp_path):
    torch.save(unet(3, spatial_dims=2).state_dict(), tmp_path / "c.pt")
    (tmp_path / "version").mkdir()
    packed = pack(tmp_path / "version", tmp_path / "c.pt", sliced_card(), None)
    network = weights.load_network(packed.card, tmp_path / "version" / WEIGHTS)
    with torch.no_grad():
        found = planes.activate(network(torch.from_numpy(GREY)[None, None]), "sigmoid")[0].numpy()
        expected = probabilities_by_slice(unet(3, spatial_dims=2).eval(), "zyx", "sigmoid")
    assert np.abs(found - expected).max() < 1e-5
    assert packed.weights_bytes == sum(t.numel() * t.element_size() for t in unet(spatial_dims=2).state_dict().values())


def test_probabilities_of_0_and_1_stay_finite():
    outputs = torch.tensor([100.0, -100.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 2, 2, 2)
    sure = torch.nn.Module()
    sure.forward = lambda x: outputs[:, :, 0].expand(len(x), 2, 2, 2)
    for activation in ("sigmoid", "softmax"):
        answer = planes.SlicedNetwork(sure, "zyx", activation)(torch.zeros(1, 1, 2, 2, 2))
        assert answer.isfinite().all()
        assert planes.activate(answer, activation)[0, :, 0, 0, 0].tolist() == pytest.approx([1, 0], abs=1e-7)


def test_a_card_that_does_not_say_its_planes_is_refused():
    arguments = {**UNET, "spatial_dims": 2}
    message = refusal(networks.new_network, card(arguments=arguments), error=CardError)
    assert message == (
        "card m: arguments.spatial_dims: must be 3, not 2: volumes have 3 axes; for one of 2 say planes: zyx"
    )
    assert "must be 2, not 3: planes have 2 axes" in refusal(
        networks.new_network, sliced_card(arguments={**UNET, "spatial_dims": 3}), error=CardError
    )
    message = refusal(networks.new_network, card(architecture="UNet_2D", arguments={}), error=CardError)
    assert message.endswith("a network of 2 axes; its card needs planes: zyx, or one of z, y, x")
    with pytest.raises(ValueError, match="planes"):
        card(planes="xz")


def test_hyper_parameters_of_a_2d_network_make_a_draft_with_planes(tmp_path):
    told = {key: value for key, value in UNET.items() if key != "out_channels"}
    save_lightning(tmp_path / "c.ckpt", "UNet", settings=told, spatial_dims=2, **UNET)
    made = draft.draft_card(tmp_path / "c.ckpt")
    assert (made.values["architecture"], made.values["planes"]) == ("UNet", "zyx")
    assert made.asks["planes"].startswith("a 2D network: zyx averages slices across each axis")
    blank = networks.blank_for_card(sliced_card(arguments=made.values["arguments"]))
    assert weights.fit(checkpoint.read(tmp_path / "c.ckpt"), blank).keys() == unet(spatial_dims=2).state_dict().keys()


def test_a_mednext_of_slices_is_told_by_its_kernels(tmp_path):
    told = {"init_filters": 4, "blocks": [1] * 9}
    save_lightning(tmp_path / "c.ckpt", settings={"do_res": True, "norm_type": "layer"}, spatial_dims=2, **told)
    made = draft.draft_card(tmp_path / "c.ckpt")
    assert made.values["planes"] == "zyx"
    described = sliced_card(architecture="MedNeXtV1", arguments=made.values["arguments"], classes=("mito",)).model_copy(
        update={"patch_voxels": (32, 32, 32)}
    )
    with torch.no_grad():
        assert networks.new_network(described).eval()(torch.rand(1, 1, 32, 32, 32)).shape == (1, 1, 32, 32, 32)


def test_activations_give_probabilities():
    outputs = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1, 1)
    assert planes.activate(outputs, "sigmoid").flatten().tolist() == pytest.approx([0.5, 0.880797])
    assert planes.activate(outputs, "softmax").flatten().tolist() == pytest.approx([0.119203, 0.880797])
    assert planes.activate(outputs, "none").flatten().tolist() == [0.0, 2.0]
