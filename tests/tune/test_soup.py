"""Averaged checkpoints: registered, and chosen by the official score."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ensemble.cli import main
from ensemble.core import manifest
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target
from ensemble.predict import SharedPredictions
from ensemble.support import QuietProgress
from ensemble.support.errors import RegistryError
from ensemble.tune.soup import AveragingOptions, Validation, average_checkpoints
from registry import checkpoint, soup
from registry.store import Registry
from tests.support.empty_registry import store_in
from tests.support.networks_small import card, refusal, same, unet
from tests.support.volumes import write_array, write_em

GRID = Grid((16, 16, 16), (4, 4, 4), (2, 2, 2))


@pytest.fixture
def store(tmp_path, monkeypatch) -> Registry:
    store = store_in(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    return store


def registered(store, folder, state, name="m", **changes):
    torch.save(state, folder / "c.pt")
    return store.register(folder / "c.pt", card(name=name, **changes))


def members(store, folder, *states, **changes):
    base = registered(store, folder, unet(9).state_dict(), "base")
    tuned = {"fine_tuned_from": base.uri, **changes}
    return [soup.registered_member(store, registered(store, folder, s, f"m{i}", **tuned)) for i, s in enumerate(states)]


def weights_of(store, version):
    return dict(checkpoint.read(store.weights(version)).values)


def test_a_soup_is_the_mean_of_its_members_and_tells_of_them(store, tmp_path):
    a, b = unet(1).state_dict(), unet(2).state_dict()
    both = members(store, tmp_path, a, b, trained_on=["7"])
    made = average_checkpoints(both, "broth", AveragingOptions("weighted", given=(3, 1)), store, alias="champion")
    expected = {key: (0.75 * a[key].double() + 0.25 * b[key].double()).float() for key in a}
    assert same(weights_of(store, made.version), expected)
    found = store.resolve("models:/broth@champion").card
    assert found.merged_from == ("models:/m0/1", "models:/m1/1")
    assert found.trained_on == ("7",)
    assert found.notes == "Soup (weighted): 0.75 models:/m0/1, 0.25 models:/m1/1."
    # a soup can be a member again: its ancestry reaches back to the base
    again = average_checkpoints(
        [soup.registered_member(store, made.version), both[0]], "stew", AveragingOptions("uniform"), store
    )
    assert again.version.card.merged_from == ("models:/broth/1", "models:/m0/1")


def test_networks_that_did_not_begin_as_the_same_are_refused(store, tmp_path):
    loners = [soup.registered_member(store, registered(store, tmp_path, unet(i).state_dict(), f"l{i}")) for i in (1, 2)]
    message = refusal(lambda: average_checkpoints(loners, "x", AveragingOptions("uniform"), store), error=RegistryError)
    assert message.startswith("models:/l2/1: nothing says that it began as the same weights as models:/l1/1")
    assert average_checkpoints(loners, "x", AveragingOptions("uniform", same_origin=True), store).version.version == 1
    assert "two members or more" in refusal(
        lambda: average_checkpoints(loners[:1], "x", AveragingOptions("uniform"), store), error=RegistryError
    )


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        ({"name": "bad name"}, AveragingOptions("uniform"), "--name 'bad name': 'bad name' is not a name"),
        ({"alias": "v1"}, AveragingOptions("uniform"), "the alias 'v1' is reserved by MLflow"),
        ({}, AveragingOptions("weighted", given=(1e308, 1e308)), "--weights: give 2 numbers above 0"),
        ({}, AveragingOptions("uniform", given=(1, 2)), "--weights: only --how weighted takes them"),
        ({}, AveragingOptions("ema", decay=1.0), "--decay 1: must lie in 0"),
    ],
)
def test_wrong_options_are_told_before_anything_is_registered(store, tmp_path, said, options, message):
    both = members(store, tmp_path, unet(1).state_dict(), unet(2).state_dict())
    known = len(store.versions())
    assert message in refusal(
        lambda: average_checkpoints(both, options=options, registry=store, **{"name": "x", **said}), error=RegistryError
    )
    assert len(store.versions()) == known
    assert "is there 2 times" in refusal(
        lambda: soup.check_members([both[0]] * 2, same_origin=True), error=RegistryError
    )


def test_networks_of_another_shape_are_refused(store, tmp_path):
    (one,) = members(store, tmp_path, unet(1).state_dict())
    other = soup.registered_member(store, registered(store, tmp_path, unet(1).state_dict(), "o", voxel_size_nm=8))
    message = refusal(
        lambda: average_checkpoints([one, other], "x", AveragingOptions("uniform", same_origin=True), store),
        error=RegistryError,
    )
    assert message.startswith("models:/o/1: its voxel_size_nm is (8.0, 8.0, 8.0), that of models:/m0/1 (4.0, 4.0, 4.0)")


def biased(towards: float) -> dict:
    """A network that sees mito where EM is bright, more or less of it as its bias says; a mean moves the bias."""
    state = {key: torch.zeros_like(value) for key, value in unet(0).state_dict().items()}
    last = [key for key in state if key.endswith("bias")][-1]
    state[last][0] = towards
    return state


@pytest.fixture
def validation(tmp_path) -> Validation:
    """A crop that is mito all over."""
    write_em(tmp_path / "data", "d", [(np.full(GRID.shape, 200, np.uint8), GRID)])
    target = Target("5", "d", GRID, ("mito",))
    manifest.write_manifest(tmp_path / "manifest.csv", [target])
    write_array(tmp_path / "truth.zarr" / "crop5" / "mito", np.ones(GRID.shape, np.uint8), GRID)
    return Validation(tmp_path / "truth.zarr", tmp_path / "manifest.csv", str(tmp_path / "data"))


def test_greedy_takes_a_member_only_if_the_score_rises(store, tmp_path, validation):
    three = members(store, tmp_path, biased(-1.0), biased(2.0), biased(1.0))
    made = average_checkpoints(three, "best", AveragingOptions("greedy"), store, validation=validation)
    assert made.scores["models:/m0/1"] == 0
    assert made.scores["models:/m1/1"] == made.scores["models:/m2/1"] == 1
    # the first of the best; nothing can raise a score of 1
    assert made.members == ("models:/m1/1",)
    assert made.version.card.validation == {"mito": 1.0}


@pytest.mark.slow
def test_what_was_predicted_for_one_soup_serves_the_next(store, tmp_path, validation):
    two = members(store, tmp_path, biased(1.0), biased(2.0))
    shared = replace(validation, cache=tmp_path / "predictions")
    for name, found in (("first", 0), ("second", 3)):
        progress = QuietProgress()
        average_checkpoints(two, name, AveragingOptions("uniform"), store, validation=shared, progress=progress)
        assert progress.said.count("1 of 1 prediction found") == found  # of both members and of the soup
    kept = SharedPredictions(shared.cache)
    kept.free(kept.unneeded())
    assert not list(shared.cache.glob("*.zarr"))


def test_members_are_not_judged_by_crops_they_were_trained_on(store, tmp_path, validation):
    two = members(store, tmp_path, biased(1.0), biased(2.0), trained_on=["5"])
    message = refusal(
        lambda: average_checkpoints(two, "x", AveragingOptions("greedy"), store, validation=validation),
        error=RegistryError,
    )
    assert message.startswith("models:/m0/1: was trained on crop 5, so it cannot be judged there")
    assert "give --truth and --manifest" in refusal(
        lambda: average_checkpoints(two, "x", AveragingOptions("greedy"), store), error=RegistryError
    )


def test_the_checkpoints_of_one_run_are_averaged_by_the_command(store, tmp_path, capsys):
    from registry import card as cards

    for step in (1, 2, 3):
        told = {"origin": "training abc", "classes": ["mito"]}
        content = {"pytorch-lightning_version": "2", "state_dict": unet(step).state_dict(), "hyper_parameters": told}
        torch.save(content, tmp_path / f"step-{step}.ckpt")
    (tmp_path / "card.yaml").write_text(cards.dump_card(card()))
    files = [str(tmp_path / f"step-{step}.ckpt") for step in (1, 2, 3)]
    options = ["--name", "smooth", "--how", "ema", "--decay", "0.5", "--card", str(tmp_path / "card.yaml")]
    assert main(["soup", *files, *options]) == 0
    assert "registered models:/smooth/1" in capsys.readouterr().out
    states = [unet(step).state_dict() for step in (1, 2, 3)]
    mean = {key: (states[0][key] / 4 + states[1][key] / 4 + states[2][key] / 2) for key in states[0]}
    made = weights_of(store, store.resolve("models:/smooth/1"))
    assert all(torch.allclose(made[key], mean[key], atol=1e-6) for key in mean)
    assert store.resolve("models:/smooth/1").card.origin == "training abc"
    assert main(["soup", files[0], files[1], "--name", "x"]) == 2
    assert "give --card CARD.yaml" in capsys.readouterr().err
