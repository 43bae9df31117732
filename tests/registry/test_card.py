"""Model cards: typed, validated on load, told by file and line, and cheap to read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.support.errors import CardError
from registry import card as cards
from registry.card import Card
from tests.support.networks_small import card

GOOD = """\
name: mito-l-4nm
architecture: UNet
arguments: {channels: [4, 8], strides: [2], norm: null}
classes: [mito, null]
voxel_size_nm: 4
patch_voxels: [16, 32, 32]
activation: sigmoid
trained_on: [601, "0602", crop7]
validation: {mito: 0.8}
notes: "1e3"
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "card.yaml"
        path.write_text(text)
        return path

    return write


def test_a_card_says_all_that_is_needed_to_run_the_network(write):
    card = cards.load_card(write(GOOD))
    assert card.name == "mito-l-4nm"
    assert card.arguments == {"channels": [4, 8], "strides": [2], "norm": None}
    assert card.classes == ("mito", None)
    assert card.voxel_size_nm == (4.0, 4.0, 4.0)
    assert card.patch_voxels == (16, 32, 32)
    assert card.trained_on == ("601", "0602", "7")
    assert (card.overlap, card.context) == (0.5, True)
    assert card.notes == "1e3"
    assert card.sha256 is None
    assert card.normalisation.apply(255.0) == 1.0


@pytest.mark.parametrize(
    "more",
    [
        "",
        "sha256: " + "a" * 64 + "\n",
        "normalisation: {subtract: 128, divide: 64.5}\ndatasets: [jrc_mus-liver]\n",
    ],
)
def test_what_is_dumped_loads_as_an_equal_card(write, more):
    card = cards.load_card(write(GOOD + more))
    text = cards.dump_card(card)
    again = cards.load_card(write(text))
    assert again == card
    assert cards.dump_card(again) == text
    assert [line.split(":")[0] for line in text.splitlines()][:2] == ["name", "architecture"]


def test_a_card_cannot_be_changed(write):
    card = cards.load_card(write(GOOD))
    with pytest.raises(ValueError, match="frozen"):
        card.overlap = 0.25


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("UNet", "Unet", ":2: architecture: 'Unet' is not known; did you mean 'UNet'?"),
        ("mito, null", "mitoo, null", ":4: classes[0]: unknown class 'mitoo'; did you mean 'mito'?"),
        (
            "mito, null",
            "mito, mito",
            ":4: classes: class 'mito' is there 2 times; name each channel's own class, or null",
        ),
        ("mito, null", "null", ":4: classes: no channel predicts a class; name at least one"),
        ("classes:", "clases:", ":4: clases: unknown key; did you mean 'classes'?"),
        ("notes:", "name:", ":10: name: the key is there twice, first on line 1; keep one"),
        ("activation: sigmoid\n", "", ":1: activation: is missing"),
        ("size_nm: 4", "size_nm: -4", ":5: voxel_size_nm: must be greater than 0, not -4"),
        ("size_nm: 4", "size_nm: [4, 4, 0]", ":5: voxel_size_nm[2]: must be greater than 0, not 0"),
        ("size_nm: 4", "size_nm: .nan", ":5: voxel_size_nm: must be a finite number, not .nan"),
        ("size_nm: 4", "size_nm: '4'", ":5: voxel_size_nm: must be a list, not '4'"),
        ("[16, 32, 32]", "[16, 32]", ":6: patch_voxels[2]: is missing"),
        ("[16, 32, 32]", "16.5", ":6: patch_voxels: must be a valid integer, not 16.5"),
        ("mito: 0.8", "mito: 1.8", ":9: validation.mito: must be less than or equal to 1, not 1.8"),
        ("mito: 0.8", "mit: 0.8", ":9: validation.mit: unknown class 'mit'; did you mean 'mito'?"),
        ("mito: 0.8", "er: 0.8", ":9: validation: no channel predicts 'er'; known: mito"),
        ("mito-l-4nm", "a/b", ":1: name: 'a/b' is not a name; begin with a letter or digit, then also - _ ."),
        ("mito-l-4nm", "a:b", ":1: name: 'a:b' is not a name; begin with a letter or digit, then also - _ ."),
        ("notes:", "overlap: 1\nnotes:", ":10: overlap: must be less than 1, not 1"),
        ("notes:", "context: 16\nnotes:", ":10: context: must be a valid boolean, not 16"),
        (
            "notes:",
            "normalisation: {divide: 0}\n#",
            ":10: normalisation.divide: must be greater than 0, not 0",
        ),
        ("notes:", "sha256: abc\n#", ":10: sha256: String should match pattern '^[0-9a-f]{64}$', not 'abc'"),
        ("601,", "1.5,", ":8: trained_on[0]: must be a valid string, not 1.5"),
    ],
)
def test_a_wrong_card_is_one_line_with_its_place(write, old, new, message):
    path = write(GOOD.replace(old, new, 1))
    with pytest.raises(CardError) as caught:
        cards.load_card(path)
    assert str(caught.value) == f"{path}{message}"


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ("[mito]", "the softmax of a single channel is 1 everywhere"),
        ("[mito, mito_lum, null]", "mito and mito_lum overlap"),
        ("[er, ne_mem_all]", "er and ne_mem_all overlap"),
    ],
)
def test_softmax_is_refused_where_channels_cannot_exclude_each_other(write, classes, reason):
    path = write(GOOD.replace("[mito, null]", classes).replace("sigmoid", "softmax"))
    with pytest.raises(CardError, match=reason) as caught:
        cards.load_card(path)
    assert str(caught.value).startswith(f"{path}:7: activation: ")


def test_softmax_over_classes_that_exclude_each_other_is_fine(write):
    text = GOOD.replace("[mito, null]", "[null, mito, nuc]").replace("sigmoid", "softmax")
    assert cards.load_card(write(text)).activation == "softmax"


def test_tags_in_a_card_run_nothing(write, tmp_path):
    trace = tmp_path / "trace"
    path = write(GOOD + f"datasets: !!python/object/apply:os.system ['touch {trace}']\n")
    with pytest.raises(CardError, match=r"the tag !!python/object/apply:os\.system is not"):
        cards.load_card(path)
    assert not trace.exists()


def test_faults_found_later_are_placed_in_the_cards_file(write):
    path = write(GOOD)
    card = cards.load_card(path)
    assert cards.where_in(card, path)("arguments", "channels", 0) == f"{path}:3: arguments.channels[0]"
    assert cards.where_in(card, None)("arguments", "channels") == "card mito-l-4nm: arguments.channels"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"em_dtype": "uint12"}, "em_dtype"), ({"em_range": [5, 1]}, "write the lowest value first")]
    + [({"em_range": [0, float("nan")]}, "em_range")],
)
def test_the_em_it_learned_from_is_a_type_and_a_range(given, said):
    assert card(em_dtype="int16", em_range=[-5, 7.5]).em_range == (-5, 7.5)
    with pytest.raises(ValidationError, match=said):
        card(**given)


def test_cards_are_read_without_torch_or_mlflow():
    code = "import sys, registry.card, registry.store; print({'torch', 'mlflow', 'monai'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_card_made_in_code_is_checked_alike():
    with pytest.raises(ValueError, match="greater than 0"):
        Card(
            name="m",
            architecture="UNet",
            arguments={},
            classes=("mito",),
            voxel_size_nm=0,
            patch_voxels=8,
            activation="sigmoid",
        )


def test_statistics_of_the_whole_image_are_those_of_its_parts():
    wanted = card(normalisation={"subtract": "mean", "divide": "std"}).normalisation
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 7)).astype(np.float32)
    fixed = wanted.fixed(image[z : z + 2] for z in range(0, 9, 2))
    assert (fixed.subtract, fixed.divide) == pytest.approx((image.mean(), image.std()), rel=1e-6)
    assert np.allclose(wanted.apply(image), (image - image.mean()) / image.std(), atol=1e-5)
