"""The files of a registered version: whole, or found damaged."""

import shutil
from pathlib import Path

import numpy as np
import torch

from ensemble.support.errors import CheckpointError
from registry import weights
from registry.version_folder import WEIGHTS
from tests.support.small_models import card, checkpoint, refusal
from tests.support.two_versions import said

FILES = ["MLmodel", "card.yaml", "golden.npz", "model.safetensors", "requirements.txt"]


def test_a_version_holds_weights_card_and_a_golden_answer(any_store, tmp_path, request):
    name = f"golden-{request.node.callspec.params['any_store']}"
    version = any_store.register(checkpoint(tmp_path / "c.pt"), card(name))
    client = any_store._mlflow.client
    folder = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert sorted(path.name for path in folder.iterdir()) == FILES
    with np.load(folder / "golden.npz") as golden:
        grey, expected = golden["input"], golden["output"]
    assert (grey.shape, grey.dtype) == ((16, 16, 16), np.uint8)
    assert (expected.shape, expected.dtype) == ((2, 16, 16, 16), np.float32)
    network = weights.load_network(version.card, folder / "model.safetensors")
    with torch.no_grad():
        answer = torch.sigmoid(network(torch.from_numpy(grey)[None, None].float() / 255))[0].numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_a_flipped_bit_is_found_and_registering_again_mends_it(store, tmp_path):
    path = checkpoint(tmp_path / "c.pt")
    version = store.register(path, card())
    local = store.weights(version)
    content = bytearray(local.read_bytes())
    content[-1] ^= 1
    local.write_bytes(content)
    assert "damaged or exchanged" in refusal(store.weights, version, error=CheckpointError)
    mended = store.register(path, card())
    assert mended.version == 2
    assert weights.sha256(store.weights(mended)) == version.sha256
    local.unlink()
    assert "but it is not there" in refusal(store.weights, version)


def test_what_is_damaged_after_registration_is_found_at_load(own_versions, capsys):
    path = own_versions.file(own_versions.resolve("models:/m/2"), WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    assert "damaged or exchanged" in said(capsys, "models", "verify", "m/2", code=2)
    shutil.copy(path, path.with_suffix(".bad"))
