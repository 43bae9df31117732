"""``models`` and ``register``: moved, retired, compared, and what is odd told in one line."""

import pytest
import torch

from ensemble.cli import main
from ensemble.cli.model_commands import with_verb
from ensemble.support.errors import RegistryError
from registry.card import dump_card
from registry.store import Registry
from registry.weights import load_network
from tests.support.empty_registry import store_in
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import card, refusal, same, unet
from tests.support.two_versions import said


def test_an_alias_moves_with_a_reason_that_stays(own_versions, capsys):
    said(capsys, "models", "alias", "m", "champion", "2", "--reason", "better on nuclei")
    assert own_versions.resolve("models:/m@champion").version == 2
    first, second = own_versions.moves("m")
    assert first.endswith("@champion -> version 1: registered")
    assert second.endswith("@champion -> version 2: better on nuclei")
    text = said(capsys, "models", "m")
    assert "better on nuclei" in text
    assert "trained on crops 7" in text


def test_a_retired_version_is_listed_but_not_resolved(own_versions, capsys):
    assert "still in use as @champion" in said(capsys, "models", "retire", "m/1", "--reason", "no", code=2)
    said(capsys, "models", "retire", "m/2", "--reason", "trained on a validation crop")
    assert "version 2 was retired: trained on a validation crop" in refusal(
        own_versions.resolve, "models:/m/2", error=RegistryError
    )
    assert "retired" in said(capsys, "models")
    assert own_versions.versions("m")[1].retired == "trained on a validation crop"


def test_two_models_side_by_side(both_versions, capsys):
    text = said(capsys, "models", "compare", "m/1", "m/2")
    assert "normalisation" in text
    assert "'divide': 201.0" in text
    assert "validation mito" in text
    assert "0.8000" in text
    assert "of their length apart" in text
    assert "are 0 of their length apart" in said(capsys, "models", "compare", "m/1", "m@champion")


def test_a_broken_version_does_not_hide_the_others(own_versions, capsys):
    own_versions.file(own_versions.resolve("models:/m/2"), "card.yaml").unlink()
    text = said(capsys, "models")
    assert "broken: models:/m/2" in text
    assert "champion" in text
    assert "no model 'nosuch'" in said(capsys, "models", "verify", "nosuch", code=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "import", "."],
        ["models", "import", "a" * 300],
        ["models", "export", "m", "."],
        ["models", "verify", "m/" + "9" * 5000],
        ["models", "retire", "m/2", "--reason", " "],
        ["register", "a" * 300],
    ],
)
def test_odd_arguments_are_one_line(both_versions, capsys, arguments):
    text = said(capsys, *arguments, code=2)
    assert text.startswith("ensemble: ")
    assert text.count("\n") == 1


def test_registering_without_a_card_writes_a_draft_and_with_it_registers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path).tracking_uri)
    told = {"classes": ["mito"], "patch_size": 32, "voxel_size_nm": 8}
    told |= {"do_res": True, "norm_type": "group"}
    save_lightning(tmp_path / "mito.ckpt", settings=told, size="S", init_filters=4, blocks=[1] * 9, out_channels=1)
    assert main(["register", "mito.ckpt"]) == 0
    said = capsys.readouterr().out
    assert "wrote mito.card.yaml" in said
    assert "mito.card.yaml:15: normalisation: grey values / 255 is a guess" in said
    assert main(["register", "mito.ckpt"]) == 2
    assert "mito.card.yaml: is there already" in capsys.readouterr().err
    assert main(["register", "mito.ckpt", "--card", "mito.card.yaml", "--alias", "champion"]) == 0
    assert "registered mito version 1 @champion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["models"], ["models", "list"]),
        (["models", "m"], ["models", "list", "m"]),
        (["models", "verify", "m"], ["models", "verify", "m"]),
        (["models", "--help"], ["models", "--help"]),
        (["build", "models"], ["build", "models"]),
        ([], []),
    ],
)
def test_models_without_a_verb_are_listed(said, meant):
    assert with_verb(said) == meant


def test_of_raw_and_averaged_weights_one_is_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path / "r").tracking_uri)
    monkeypatch.chdir(tmp_path)
    torch.save({"model": unet(0).state_dict(), "ema_state_dict": unet(1).state_dict()}, "c.pt")
    described = card(name="c", arguments={"channels": [4, 8], "strides": [2]})
    (tmp_path / "card.yaml").write_text(dump_card(described))
    for arguments in (["c.pt"], ["c.pt", "--card", "card.yaml"]):
        text = said(capsys, "register", *arguments, code=2)
        assert "c.pt: holds different weights under model, ema_state_dict" in text
    assert "--card c.card.yaml --weights ema_state_dict" in said(
        capsys, "register", "c.pt", "--weights", "ema_state_dict"
    )
    said(capsys, "register", "c.pt", "--card", "card.yaml", "--weights", "ema_state_dict")
    store = Registry()
    network = load_network(described, store.weights(store.resolve("models:/c/1")))
    assert same(network.state_dict(), unet(1).state_dict())
