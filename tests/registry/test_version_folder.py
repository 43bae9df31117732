"""The files of a registered version: whole, or found damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ensemble.support.errors import CheckpointError
from registry import version_folder, weights
from registry.checksums import sha256
from registry.connection import Connection
from registry.store import Registry
from registry.version_folder import WEIGHTS
from tests.support.small_models import card, checkpoint, refusal
from tests.support.two_versions import said

EXAMPLE = ["input_example.json", "serving_input_example.json"]
FILES = ["MLmodel", "card.yaml", "golden.npz", EXAMPLE[0], "model.safetensors", "requirements.txt", EXAMPLE[1]]


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
    assert sha256(store.weights(mended)) == version.sha256
    local.unlink()
    assert "but it is not there" in refusal(store.weights, version)


def test_what_is_damaged_after_registration_is_found_at_load(own_versions, capsys):
    path = own_versions.file(own_versions.resolve("models:/m/2"), WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    assert "damaged or exchanged" in said(capsys, "models", "verify", "m/2", code=2)
    shutil.copy(path, path.with_suffix(".bad"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("[mito, null]", "[null, mito]"),
        lambda text: text.replace("201.0", "255.0"),
        lambda text: text + "# a note\n",
        lambda text: "",
    ],
    ids=["classes swapped", "another scale", "a comment", "emptied"],
)
def test_a_card_edited_among_the_artifacts_is_refused_until_it_is_put_back(own_versions, capsys, edit):
    path = own_versions.file(own_versions.resolve("models:/m/1"), "card.yaml")
    text = path.read_text()
    path.write_text(edit(text))
    assert path.read_text() != text
    for reference in ("models:/m/1", "models:/m@champion"):
        message = refusal(own_versions.resolve, reference)
        assert "not the card that models:/m/1 was registered with" in message
        assert "register the changed one as a new version: ensemble register" in message
    verified = said(capsys, "models", "verify", "m", code=1)
    assert "broken: models:/m/1: " in verified and verified.count("the same network") == 1
    assert "not the card" in said(capsys, "models", "verify", "m/1", code=2)
    path.write_text(text)
    assert own_versions.resolve("models:/m@champion").version == 1


def test_a_changed_copy_of_a_servers_card_is_fetched_anew(server, tmp_path):
    store = Registry(server)
    version = store.register(checkpoint(tmp_path / "c.pt"), card("refetched-card"))
    path = store.file(version, "card.yaml")
    text = path.read_text()
    path.write_text(text.replace("mito", "nuc"))
    assert store.resolve(version.uri).card == version.card
    assert path.read_text() == text


@pytest.mark.parametrize(
    "run_id", ["..", "../..", "/etc", "a/../..", "a/b", "", ".", "a\\b", "a\0b", "é", "a\n", "a" * 300]
)
def test_a_run_that_a_server_calls_oddly_leads_nowhere(tmp_path, run_id):
    there = set(tmp_path.rglob("*"))
    for source in ("mlflow-artifacts:/1/model", "file:///nowhere"):
        connection = Connection("http://u:secret@127.0.0.1:9")
        message = refusal(version_folder.local_file, connection, source, run_id, WEIGHTS)
        assert message.startswith("http://127.0.0.1:9: no run is called")
    assert set(tmp_path.rglob("*")) == there
