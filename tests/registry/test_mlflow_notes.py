"""What MLflow's pages show of model versions and builds."""

import numpy as np
from mlflow import MlflowClient
from PIL import Image

from registry.mlflow_notes import build_note, version_note, write_picture
from tests.support.small_models import card, checkpoint


def test_a_build_links_to_each_version_it_was_made_with_once() -> None:
    note = build_note([("mito", 2), ("mito", 2), ("a b", 1)])
    links = [line for line in note.splitlines() if line.startswith("- ")]
    assert links == ["- [a b version 1](#/models/a%20b/versions/1)", "- [mito version 2](#/models/mito/versions/2)"]


def test_what_a_card_says_is_text_and_no_markup() -> None:
    note = version_note(card(notes="<img src=x> [a](b) `c`", validation={"mito": 0.8}), "run", "model", ())
    assert r"\<img src=x\> \[a\](b) \`c\`" in note
    assert "| mito | 0.8000 |" in note
    assert "4 × 4 × 3.36 nm" in note
    assert "get-artifact" not in note


def test_a_picture_shows_the_middle_plane_and_the_answers_of_named_classes(tmp_path) -> None:
    grey = np.zeros((4, 160, 160), np.uint8)
    grey[2, :80] = 200
    answers = np.zeros((3, 4, 160, 160), np.float32)
    answers[0, 2, :, 80:] = 1
    answers[1], answers[2, 2] = 1, 0.5
    assert write_picture(card(classes=("mito", None, "nuc")), grey, answers, tmp_path) == ("mito", "nuc")
    shown = np.asarray(Image.open(tmp_path / "picture.png"))
    first, second, third = (shown[:160, at : at + 160] for at in (0, 164, 328))
    assert (first[:80].min(), first[80:].max()) == (255, 0)
    assert (second[:, 80:].min(), second[:, :80].max()) == (255, 0)
    assert {*third.ravel()} == {128}


def test_a_registered_version_is_described_with_its_picture(store, tmp_path) -> None:
    patch = np.random.default_rng(0).integers(0, 255, (16, 16, 16), np.uint8)
    shown = store.register(checkpoint(tmp_path / "c.pt"), card("seen"), shown=patch)
    client = MlflowClient(store.tracking_uri)
    description = client.get_model_version("seen", str(shown.version)).description
    place = f"get-artifact?path=model%2Fpicture.png&run_uuid={shown.run_id}"
    assert place in description
    assert Image.open(store.file(shown, "picture.png")).size[0] > 160
    unseen = store.register(checkpoint(tmp_path / "c.pt"), card("unseen"))
    assert "get-artifact" not in client.get_model_version("unseen", str(unseen.version)).description
