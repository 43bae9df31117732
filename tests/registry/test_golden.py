"""A golden patch and the network's answer: stored with a model, and replayed to verify it."""

import io
import zipfile

import numpy as np
import pytest
import torch

from ensemble.support.errors import CardError, CheckpointError
from registry import golden, networks
from registry.card import where_in
from tests.support.networks_small import card, refusal, unet
from tests.support.two_versions import CPU


def recorded_answer(network, described) -> golden.Golden:
    return golden.record(network, networks.blank_for_card(described), described, where_in(described, None))


def test_the_golden_answer_is_that_of_the_network_on_normalised_grey():
    network = unet().eval()
    described = card(patch_voxels=(16, 48, 32), normalisation={"subtract": 128, "divide": 64})
    recorded = recorded_answer(network, described)
    assert recorded.grey.shape == (16, 32, 32)
    assert recorded.grey.dtype == "uint8"
    with torch.no_grad():
        expected = torch.sigmoid(network((torch.tensor(recorded.grey)[None, None] - 128.0) / 64.0))[0]
    assert torch.allclose(torch.from_numpy(recorded.probabilities), expected, atol=1e-6)
    assert (recorded_answer(network, described).grey == recorded.grey).all()


def test_activation_none_is_refused_for_outputs_that_are_no_probabilities():
    described = card(activation="none", normalisation={"divide": 0.01})
    assert "card m: activation: 'none' says" in refusal(recorded_answer, unet().eval(), described, error=CardError)


def test_what_is_written_is_read_and_is_the_answer_of_its_network_alone(tmp_path):
    network, described = unet().eval(), card()
    golden.write(recorded_answer(network, described), tmp_path / "golden.npz")
    again = golden.read(tmp_path / "golden.npz")
    assert golden.deviation(network, described, again, CPU).max() < 1e-6
    assert golden.deviation(unet(1).eval(), described, again, CPU).max() > golden.LIMIT
    of_another = card(classes=("mito", "nuc", None))
    assert "not one of this network" in refusal(golden.deviation, network, of_another, again, CPU)


def test_a_file_that_claims_more_than_it_holds_is_damaged(tmp_path):
    path = tmp_path / "golden.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (2**40,), "fortran_order": False, "descr": "|u1"})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("input.npy", header.getvalue() + bytes(8))
        archive.writestr("output.npy", header.getvalue() + bytes(8))
    with pytest.raises(CheckpointError, match="its golden answer is damaged"):
        golden.read(path)
