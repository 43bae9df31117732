"""A checkpoint without a card: the draft says what the file tells, and which lines need a person."""

import pytest
import torch

from ensemble.support.errors import CardError
from registry import card as cards
from registry import draft, networks
from registry.card import dump_card
from tests.support.lightning_checkpoint import save_lightning
from tests.support.networks_small import card, unet


def test_a_mednext_is_known_by_its_tensors_and_lightning_by_its_settings(tmp_path):
    told = {"classes": ["mitochondria", "nucleus"], "patch_size": (32, 32, 32), "resolution": 4}
    save_lightning(
        tmp_path / "best.ckpt", settings=told, size="S", kernel_size=5, deep_supervision=True, out_channels=2
    )
    made = draft.draft_card(tmp_path / "best.ckpt")
    assert made.values["architecture"] == "MedNeXtV1"
    arguments = {"kernel_size": 5, "deep_supervision": True, "size": "S", "residual": True, "norm": "group"}
    assert made.values["arguments"] == arguments
    assert (made.values["classes"], made.values["patch_voxels"]) == (["mito", "nuc"], [32, 32, 32])
    assert set(made.asks) == {"arguments", "normalisation", "em_dtype", "activation", "trained_on"}
    (tmp_path / "c.yaml").write_text(made.text())
    assert cards.load_card(tmp_path / "c.yaml").voxel_size_nm == (4, 4, 4)


def test_what_a_file_does_not_tell_is_asked_and_cannot_be_forgotten(tmp_path):
    torch.save(unet().state_dict(), tmp_path / "mine.pt")
    made = draft.draft_card(tmp_path / "mine.pt")
    assert set(made.asks) >= {"architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels"}
    (tmp_path / "c.yaml").write_text(made.text())
    with pytest.raises(
        CardError,
        match=r"c.yaml:3: architecture: is not filled in; known: Dyn.*; this is a draft: fill in",
    ):
        cards.load_card(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "key", ["architecture", "arguments", "classes", "voxel_size_nm", "patch_voxels", "normalisation", "activation"]
)
def test_each_line_that_is_not_filled_is_told_by_its_name(tmp_path, key):
    lines = dump_card(card()).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"{key}:"))
    end = next(n for n in range(at + 1, len(lines)) if not lines[n].startswith((" ", "-")))
    (tmp_path / "c.yaml").write_text("\n".join([*lines[:at], "# please check: why", f"{key}: null", *lines[end:]]))
    with pytest.raises(CardError, match=rf"c.yaml:{at + 2}: {key}: is not filled in.*; this is a draft"):
        cards.load_card(tmp_path / "c.yaml")


NAMES = [f"class {number}" for number in range(networks.MAX_CHANNELS)]


@pytest.mark.parametrize(
    ("told", "is_believed"),
    [
        (["mito", "nuc"], True),
        (NAMES, True),
        ([*NAMES, "one more"], False),
        (["n" * 1000], True),
        (["n" * 1001], False),
        ([], False),
        (["mito", 3], False),
        ("mito", False),
        ({"mito": 1}, False),
        (None, False),
    ],
    ids=range(10),
)
def test_a_list_of_classes_in_a_checkpoint_is_believed_up_to_what_a_network_can_have(tmp_path, told, is_believed):
    content = {"state_dict": unet().state_dict(), "hyper_parameters": {"classes": told}}
    torch.save(content, tmp_path / "c.ckpt")
    made = draft.draft_card(tmp_path / "c.ckpt")
    believed = made.values.get("classes")
    assert (believed is not None) == is_believed
    assert ("classes" in made.asks) == (not is_believed or set(believed) == {None})
    assert len(made.text()) < 400_000
