"""A checkpoint and its card become the files of a version."""

import shutil

import torch

from ensemble.support.errors import CardError
from registry import golden, weights
from registry.card import load_card
from registry.checksums import sha256
from registry.packing import pack
from registry.version_folder import CARD, GOLDEN, WEIGHTS
from tests.support.small_models import card, checkpoint, refusal
from tests.support.two_versions import CPU


def test_what_is_packed_loads_as_the_network_that_gave_the_golden_answer(tmp_path):
    folder = tmp_path / "version"
    folder.mkdir()
    packed = pack(folder, checkpoint(tmp_path / "c.pt", seed=3), card(), None)
    assert packed.card == card(sha256=sha256(folder / WEIGHTS)) == load_card(folder / CARD)
    network = weights.load_network(packed.card, folder / WEIGHTS)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())
    assert golden.deviation(network, packed.card, golden.read(folder / GOLDEN), CPU).max() < 1e-6
    assert packed.weights_bytes == sum(t.numel() * t.element_size() for t in saved.values())


def test_a_card_of_other_weights_is_refused(tmp_path):
    folder = tmp_path / "version"
    folder.mkdir()
    path = checkpoint(tmp_path / "c.pt")
    pack(folder, path, card(), None)
    right = card(sha256=sha256(folder / WEIGHTS))
    shutil.rmtree(folder)
    folder.mkdir()
    assert pack(folder, path, right, None).card == right
    message = refusal(pack, folder, path, card(sha256="0" * 64), None, error=CardError)
    assert "the checkpoint holds other weights" in message
