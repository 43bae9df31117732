"""A folder of the toolkit, laid out as its training leaves it, fills in the draft of a card."""

import pytest
import torch

from registry import card as cards
from registry import draft, networks
from registry.toolkit_folder import card_values
from tests.support.networks_small import SMALL

CONFIGURATION = """
from upath import UPath
from cellmap_segmentation_challenge.models import UNet_2D
learning_rate = 0.0001
input_array_info = {"shape": (1, 128, 128), "scale": (8, 8, 8)}  # of the data to load
target_array_info = input_array_info
classes = ["nuc", "er"]
model_name = "2d_unet"
model = UNet_2D(1, len(classes))
open("trace", "w")
"""
ROW = (
    '"{0}","/d/{1}/{1}.zarr","recon-1/em/fibsem-uint8","/d/{1}/{1}.zarr","recon-1/labels/groundtruth/crop{2}/[nuc,er]"'
)
SPLIT = [("train", "jrc_cos7-1a", 234), ("validate", "jrc_cos7-1b", 237), ("train", "jrc_hela-2", 1)]


@pytest.fixture
def trained(tmp_path):
    """The last checkpoint of a training of the toolkit, in its folder with configuration, split and logs."""
    (tmp_path / "train_2D.py").write_text(CONFIGURATION)
    (tmp_path / "datasplit.csv").write_text("\n".join(ROW.format(*row) for row in SPLIT))
    for folder in ("checkpoints", "tensorboard"):
        (tmp_path / folder).mkdir()
    torch.manual_seed(0)
    state = networks.build("UNet_2D", SMALL["UNet_2D"]).state_dict()
    torch.save(state, tmp_path / "checkpoints" / "2d_unet_100.pth")
    return tmp_path / "checkpoints" / "2d_unet_100.pth"


def test_the_draft_asks_only_what_the_folder_does_not_tell(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    made = draft.draft_card(trained)
    assert made.values["architecture"] == "UNet_2D"
    assert made.values["classes"] == ["nuc", "er"]
    assert (made.values["patch_voxels"], made.values["voxel_size_nm"]) == ([128, 128, 128], [8.0, 8.0, 8.0])
    assert (made.values["activation"], made.values["planes"]) == ("sigmoid", "zyx")
    assert made.values["normalisation"] == {"subtract": 0.0, "divide": 255.0}
    assert (made.values["trained_on"], made.values["validated_on"]) == (["234", "1"], ["237"])
    assert made.values["datasets"] == ["jrc_cos7-1a", "jrc_cos7-1b", "jrc_hela-2"]
    assert set(made.asks) == {"planes", "em_dtype", "trained_on"}
    assert not (trained.parent / "trace").exists()
    (trained.parent / "card.yaml").write_text(made.text())
    network = networks.new_network(cards.load_card(trained.parent / "card.yaml"))
    assert type(network.network).__name__ == "UNet_2D"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("train_raw_value_transforms = T.Compose([Blur()])", "normalisation"),
        ("criterion = torch.nn.MSELoss", "activation"),
    ],
)
def test_what_the_configuration_changes_is_asked(trained, line, key):
    with (trained.parents[1] / "train_2D.py").open("a") as file:
        file.write(line)
    assert "of its own" in draft.draft_card(trained).asks[key] or "has its own" in draft.draft_card(trained).asks[key]


def test_the_configuration_is_the_one_that_the_checkpoint_is_called_after(trained):
    other = CONFIGURATION.replace('"2d_unet"', '"mine"').replace('["nuc", "er"]', '["mito", "er"]')
    (trained.parents[1] / "train_mine.py").write_text(other)
    assert card_values(trained)[0]["classes"] == ["nuc", "er"]
    assert card_values(trained.with_name("mine_3.pth"))[0]["classes"] == ["mito", "er"]
    assert "classes" not in card_values(trained.with_name("another_3.pth"))[0]


@pytest.mark.parametrize(
    ("line", "classes", "is_asked"),
    [("", ["nuc", "er"], False), ("classes = get_tested_classes()", [None, None], True)],
)
def test_classes_that_are_not_written_out(trained, line, classes, is_asked):
    """Those of the toolkit where the configuration says none; asked where it computes them."""
    (trained.parents[1] / "train_2D.py").write_text(CONFIGURATION.replace('classes = ["nuc", "er"]', line))
    made = draft.draft_card(trained)
    assert made.values["classes"] == classes
    assert ("get_tested_classes() gives" in made.asks.get("classes", "")) == is_asked


def test_classes_of_another_number_than_channels_are_not_believed(trained):
    file = trained.parents[1] / "train_2D.py"
    file.write_text(CONFIGURATION.replace('["nuc", "er"]', '["nuc", "er", "mito"]'))
    made = draft.draft_card(trained)
    assert (made.values["classes"], "classes" in made.asks) == ([None, None], True)


@pytest.mark.parametrize("content", ["classes = [", "input_array_info = 3\nclasses = get()", "(" * 5000, "\0"])
def test_a_configuration_that_tells_nothing_is_passed_over(trained, content):
    (trained.parents[1] / "train_2D.py").write_text(content)
    (trained.parents[1] / "datasplit.csv").write_text('"train"\n\0\n"a","b","c","d","e"')
    assert {"classes", "patch_voxels", "voxel_size_nm", "trained_on"} <= set(draft.draft_card(trained).asks)
