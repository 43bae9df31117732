"""A checkpoint without a card: the draft says what the file tells, and which lines need a person."""

import pytest
import torch

from ensemble.support.errors import CardError
from registry import card as cards
from registry import draft
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import unet


def test_a_mednext_is_known_by_its_tensors_and_lightning_by_its_settings(tmp_path):
    told = {"classes": ["mitochondria", "nucleus"], "patch_size": (32, 32, 32), "resolution": 4}
    save_lightning(
        tmp_path / "best.ckpt", settings=told, size="S", kernel_size=5, deep_supervision=True, out_channels=2
    )
    made = draft.draft_card(tmp_path / "best.ckpt")
    assert made.values["architecture"] == "MedNeXtV1"
    assert made.values["arguments"] == {"kernel_size": 5, "deep_supervision": True, "size": "S"}
    assert (made.values["classes"], made.values["patch_voxels"]) == (["mito", "nuc"], [32, 32, 32])
    assert set(made.asks) == {"normalisation", "em_dtype", "activation", "trained_on"}
    (tmp_path / "c.yaml").write_text(made.text())
    assert cards.load_card(tmp_path / "c.yaml").voxel_size_nm == (4, 4, 4)


def test_what_a_file_does_not_tell_is_asked_and_cannot_be_forgotten(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "mine.pt")
    made = draft.draft_card(tmp_path / "mine.pt")
    assert set(made.asks) >= {"architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels"}
    (tmp_path / "c.yaml").write_text(made.text())
    with pytest.raises(CardError, match=r"c.yaml:3: architecture: None is not known; known: DynUNet"):
        cards.load_card(tmp_path / "c.yaml")
