"""A checkpoint without a card: the draft says what the file tells, and which lines need a person."""

import json

import pytest
import torch
from networks_small import UNET, unet

from ensemble.cli import main
from ensemble.support.errors import CardError
from registry import card as cards
from registry import draft, networks


def saved(path, architecture="MedNeXtV1", prefix="model.", settings=None, **arguments):
    torch.manual_seed(0)
    network = networks.build(architecture, arguments)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    content = {"pytorch-lightning_version": "2", "state_dict": state, "hyper_parameters": settings or {}}
    torch.save(content, path)
    return network


def test_a_mednext_is_known_by_its_tensors_and_lightning_by_its_settings(tmp_path):
    told = {"classes": ["mitochondria", "nucleus"], "patch_size": (32, 32, 32), "resolution": 4}
    saved(tmp_path / "best.ckpt", settings=told, size="S", kernel_size=5, deep_supervision=True, out_channels=2)
    made = draft.draft_card(tmp_path / "best.ckpt")
    assert made.values["architecture"] == "MedNeXtV1"
    assert made.values["arguments"] == {"kernel_size": 5, "deep_supervision": True, "size": "S"}
    assert (made.values["classes"], made.values["patch_voxels"]) == (["mito", "nuc"], [32, 32, 32])
    assert set(made.asks) == {"normalisation", "activation", "trained_on"}
    (tmp_path / "c.yaml").write_text(made.text())
    assert cards.load_card(tmp_path / "c.yaml").voxel_size_nm == (4, 4, 4)


def test_what_a_file_does_not_tell_is_asked_and_cannot_be_forgotten(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "mine.pt")
    made = draft.draft_card(tmp_path / "mine.pt")
    assert set(made.asks) >= {"architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels"}
    (tmp_path / "c.yaml").write_text(made.text())
    with pytest.raises(CardError, match=r"c.yaml:3: architecture: None is not known; known: DynUNet"):
        cards.load_card(tmp_path / "c.yaml")


def bundle(folder, **network):
    """A MONAI bundle; as in many, some of its values are expressions."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(unet().state_dict(), folder / "models" / "model.pt")
    outputs = {"pred": {"channel_def": {"0": "background", "1": "mito"}}}
    inputs = {"image": {"spatial_shape": [16, 16, 16]}}
    metadata = {"network_data_format": {"inputs": inputs, "outputs": outputs}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = {"network_def": {"_target_": "monai.networks.nets.UNet", **network}, "widths": [4, 8], "strides": [2]}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))


def test_a_bundle_tells_its_network_and_no_expression_of_it_is_evaluated(tmp_path):
    trace = tmp_path / "trace"
    expression = f"$open({str(trace)!r}, 'w')"
    bundle(tmp_path / "b", channels="@widths", strides="@strides", out_channels=2, dropout=expression)
    made = draft.draft_card(tmp_path / "b")
    assert made.values["architecture"] == "UNet"
    assert made.values["arguments"] == {**UNET, "dropout": None}
    assert (made.values["classes"], made.values["patch_voxels"]) == ([None, "mito"], [16, 16, 16])
    assert not trace.exists()


def test_registering_without_a_card_writes_a_draft_and_with_it_registers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    told = {"classes": ["mito"], "patch_size": 32, "voxel_size_nm": 8}
    saved(tmp_path / "mito.ckpt", settings=told, size="S", init_filters=4, blocks=[1] * 9, out_channels=1)
    assert main(["register", "mito.ckpt"]) == 0
    said = capsys.readouterr().out
    assert "wrote mito.card.yaml" in said
    assert "mito.card.yaml:13: normalisation: grey values / 255 is a guess" in said
    assert main(["register", "mito.ckpt"]) == 2
    assert "mito.card.yaml: is there already" in capsys.readouterr().err
    assert main(["register", "mito.ckpt", "--card", "mito.card.yaml", "--alias", "champion"]) == 0
    assert "registered mito version 1 @champion" in capsys.readouterr().out
