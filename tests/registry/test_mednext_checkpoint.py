"""MedNeXt as the authors' package builds it in every way it offers: the same answers, or a question."""

import numpy as np
import pytest
import torch

from ensemble.support.errors import CardError
from registry import checkpoint, draft, mednext_checkpoint, networks, weights
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import card, refusal, unet
from tests.support.originals import answer_of, patch, sampled, weights_by_name

SMALL = {"init_filters": 4, "expansion_ratios": [2] * 9, "blocks": [1] * 9, "kernel_size": 3}
WIDER = {"expansion_ratios": [2, 3, 4, 4, 4, 4, 4, 3, 2]}
VARIANTS = {
    "mednext layer": {"norm": "layer"},
    "mednext plain": {"residual": False},
    "mednext bare": {"residual": False, "residual_resampling": False},
    "mednext grn": {"grn": True},
    "mednext grn layer": {"norm": "layer", "grn": True, **WIDER},
    "mednext kernels": {"decoder_kernel_size": 5},
}


def save_as_the_authors(path, **arguments) -> None:
    """Numbers made of the names that the authors' code gives, under these names, as their code saves them."""
    blank = networks.blank("MedNeXtV1", {"out_channels": 2, **SMALL, **arguments})
    shapes = {key.replace("global_resp_", "grn_"): value.shape for key, value in blank.state_dict().items()}
    torch.save({"state_dict": weights_by_name({**shapes, "dummy_tensor": (1,)})}, path)


@pytest.mark.parametrize("name", VARIANTS)
def test_answers_are_those_of_the_authors_package(tmp_path, name):
    variant = VARIANTS[name]
    save_as_the_authors(tmp_path / "c.model", **variant)
    made = draft.draft_card(tmp_path / "c.model")
    said = {"residual": variant.get("residual", True), "norm": variant.get("norm", "group")}
    arguments = {**made.values["arguments"], **said, "out_channels": 2}
    assert made.values["architecture"] == "MedNeXtV1"
    network = networks.build("MedNeXtV1", arguments).eval()
    network.load_state_dict(weights.fit(checkpoint.read(tmp_path / "c.model"), network))
    with torch.no_grad():
        found = sampled(network(patch(32, 32, 32)))
    assert np.abs(found - answer_of(name)).max() < 1e-5


def test_what_the_tensors_do_not_tell_is_asked_and_not_run_before_it_is_said(tmp_path):
    save_as_the_authors(tmp_path / "c.model")
    made = draft.draft_card(tmp_path / "c.model")
    assert made.asks["arguments"].startswith("no tensor tells residual (do_res ")
    assert made.asks["arguments"].endswith("have no likely value; say what the network was built with")
    unsaid = card(architecture="MedNeXtV1", arguments=made.values["arguments"], patch_voxels=32)
    with pytest.raises(CardError, match="arguments: MedNeXtV1 refuses them: norm None is neither group nor layer"):
        networks.new_network(unsaid)
    said = {**made.values["arguments"], "norm": "group"}
    with pytest.raises(CardError, match="MedNeXtV1 refuses them: residual is neither true nor false; say which"):
        networks.new_network(card(architecture="MedNeXtV1", arguments=said, patch_voxels=32))


@pytest.mark.parametrize(
    ("settings", "residual", "norm", "asked"),
    [
        ({"do_res": False, "norm_type": "layer"}, False, "layer", ()),
        ({"model": {"do_res": True, "norm_type": "group"}}, True, "group", ()),
        ({"do_res": True}, True, None, ("norm (",)),
        ({"do_res": 1, "norm_type": "batch"}, None, None, ("residual (", "norm (")),
        ({"do_res": True, "model": {"do_res": False}, "norm_type": "layer"}, None, "layer", ("residual (",)),
    ],
)
def test_hyper_parameters_that_say_it_are_believed(tmp_path, settings, residual, norm, asked):
    save_lightning(tmp_path / "c.ckpt", settings=settings, **SMALL, out_channels=2)
    made = draft.draft_card(tmp_path / "c.ckpt")
    assert (made.values["arguments"]["residual"], made.values["arguments"]["norm"]) == (residual, norm)
    assert ("arguments" in made.asks) == bool(asked)
    assert all(text in made.asks["arguments"] for text in asked)


def test_monais_naming_tells_whether_blocks_add_what_went_into_them(tmp_path):
    """One argument of MONAI's is for all blocks: without it, a draft that let the others add would answer wrongly."""
    told = {"init_filters": 4, "kernel_size": 3, "out_channels": 2}
    torch.manual_seed(0)
    monai = networks.build("MedNeXt", {**told, "use_residual_connection": False}).eval()
    torch.save(monai.state_dict(), tmp_path / "c.pt")
    made = draft.draft_card(tmp_path / "c.pt")
    assert made.values["arguments"]["residual"] is False
    assert "arguments" not in made.asks
    arguments = {**made.values["arguments"], "out_channels": 2}
    network = networks.build(made.values["architecture"], arguments).eval()
    network.load_state_dict(weights.fit(checkpoint.read(tmp_path / "c.pt"), network))
    with torch.no_grad():
        assert torch.allclose(network(patch(32, 32, 32)), monai(patch(32, 32, 32)), atol=1e-5)


def test_a_network_of_several_inputs_is_refused_and_another_is_left_to_others(tmp_path):
    save_lightning(tmp_path / "c.ckpt", in_channels=2, **SMALL)
    message = refusal(mednext_checkpoint.described_by, checkpoint.read(tmp_path / "c.ckpt"))
    assert message == f"{tmp_path / 'c.ckpt'}: a network of 2 input channels; EM has 1"
    torch.save(unet().state_dict(), tmp_path / "unet.pt")
    assert mednext_checkpoint.described_by(checkpoint.read(tmp_path / "unet.pt")) == ({}, {})
