"""The life of registered models: verified, compared, moved, retired, handed on, loaded by MLflow's own tools."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from networks_small import card, refusal, unet

from ensemble.cli import main
from ensemble.support.errors import CheckpointError, RegistryError
from registry import networks, transfer
from registry.files import GOLDEN, WEIGHTS
from registry.store import Registry
from registry.verify import verify_model
from registry.weights import load_network

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path, monkeypatch) -> Registry:
    """A registry with two versions of one model, the first of which scored better."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    store = Registry()
    for seed, score in ((1, 0.8), (2, 0.7)):
        torch.save(unet(seed).state_dict(), tmp_path / f"{seed}.pt")
        described = card(validation={"mito": score}, trained_on=["7"], normalisation={"divide": 200 + seed})
        store.register(tmp_path / f"{seed}.pt", described, alias="champion" if seed == 1 else None)
    return store


def said(capsys, *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main([*arguments]) == code
    found = capsys.readouterr()
    return found.err if code == 2 else found.out


def test_a_model_is_verified_by_replaying_its_golden_input(store, capsys):
    for version in store.versions():
        assert verify_model(store, version, CPU).largest < 1e-6
    text = said(capsys, "models", "verify", "m")
    assert text.count("the same network") == 2
    assert "models:/m/1 on cpu: largest deviation" in text
    assert said(capsys, "models", "verify", "m@champion").count("the same network") == 1


def test_another_answer_is_told_as_one(store, capsys):
    version = store.resolve("models:/m/1")
    path = store.file(version, GOLDEN)
    golden = store.golden(version)
    np.savez_compressed(path, input=golden.grey, output=golden.probabilities + 0.01)
    assert not verify_model(store, version, CPU).holds
    assert "NOT the same answer" in said(capsys, "models", "verify", "m/1", code=1)
    path.write_bytes(b"no archive")
    assert "its golden answer is damaged" in said(capsys, "models", "verify", "m/1", code=2)


def test_an_alias_moves_with_a_reason_that_stays(store, capsys):
    said(capsys, "models", "alias", "m", "champion", "2", "--reason", "better on nuclei")
    assert store.resolve("models:/m@champion").version == 2
    first, second = store.moves("m")
    assert first.endswith("@champion -> version 1: registered")
    assert second.endswith("@champion -> version 2: better on nuclei")
    text = said(capsys, "models", "m")
    assert "better on nuclei" in text
    assert "trained on crops 7" in text


def test_a_retired_version_is_listed_but_not_resolved(store, capsys):
    assert "still in use as @champion" in said(capsys, "models", "retire", "m/1", "--reason", "no", code=2)
    said(capsys, "models", "retire", "m/2", "--reason", "trained on a validation crop")
    assert "version 2 was retired: trained on a validation crop" in refusal(
        store.resolve, "models:/m/2", error=RegistryError
    )
    assert "retired" in said(capsys, "models")
    assert store.versions("m")[1].retired == "trained on a validation crop"


def test_two_models_side_by_side(store, capsys):
    text = said(capsys, "models", "compare", "m/1", "m/2")
    assert "normalisation" in text
    assert "'divide': 201.0" in text
    assert "validation mito" in text
    assert "0.8000" in text
    assert "of their length apart" in text
    assert "are 0 of their length apart" in said(capsys, "models", "compare", "m/1", "m@champion")


def test_a_model_travels_as_one_file(store, tmp_path, monkeypatch, capsys):
    said(capsys, "models", "export", "m@champion", "m.zip" if False else str(tmp_path / "m.zip"))
    again = tmp_path / "again.zip"
    transfer.export(store, store.resolve("models:/m/1"), again)
    assert again.read_bytes() == (tmp_path / "m.zip").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other/mlflow.db")
    said(capsys, "models", "import", str(again), "--alias", "champion")
    mine, theirs = Registry().resolve("models:/m@champion"), store.resolve("models:/m/1")
    assert (mine.card, mine.sha256) == (theirs.card, theirs.sha256)


def _changed(source: Path, target: Path, change) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name, content in change({name: old.read(name) for name in old.namelist()}).items():
            new.writestr(name, content)
    return target


def test_a_file_that_is_no_exported_model_is_refused_and_nothing_is_registered(store, tmp_path):
    file = tmp_path / "m.zip"
    transfer.export(store, store.resolve("models:/m/1"), file)

    def flipped(members):
        body = bytearray(members[WEIGHTS])
        body[-1] ^= 1
        return {**members, WEIGHTS: bytes(body)}

    cases = {
        "damaged or exchanged": (flipped, CheckpointError),
        "expected what ensemble models export writes": (lambda m: {**m, "../evil": b""}, RegistryError),
        "answers": (lambda m: {**m, "card.yaml": m["card.yaml"].replace(b"sigmoid", b"softmax")}, CheckpointError),
        "is damaged": (lambda m: {**m, GOLDEN: b"x"}, CheckpointError),
    }
    empty = Registry(f"sqlite:///{tmp_path}/empty/mlflow.db")
    for number, (message, (change, error)) in enumerate(cases.items()):
        bad = _changed(file, tmp_path / f"{number}.zip", change)
        assert message in refusal(transfer.import_, empty, bad, None, error=error)
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:1000])
    assert "damaged or no exported model" in refusal(transfer.import_, empty, tmp_path / "cut.zip", None)
    assert "no such file" in refusal(transfer.import_, empty, tmp_path / "none.zip", None, error=RegistryError)
    assert empty.versions() == []


def test_a_broken_version_does_not_hide_the_others(store, capsys):
    store.file(store.resolve("models:/m/2"), "card.yaml").unlink()
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
def test_odd_arguments_are_one_line(store, capsys, arguments):
    text = said(capsys, *arguments, code=2)
    assert text.startswith("ensemble: ")
    assert text.count("\n") == 1


def test_mlflow_itself_loads_a_model_and_runs_it(store):
    import mlflow

    mlflow.set_tracking_uri(store.tracking_uri)
    loaded = mlflow.pyfunc.load_model("models:/m@champion")
    version = store.resolve("models:/m/1")
    golden = store.golden(version)
    answer = loaded.predict(golden.grey)
    assert answer.shape == (1, *golden.grey.shape)  # the channel without a class is left out
    assert np.abs(answer[0] - golden.probabilities[0]).max() < 1e-6
    larger = np.random.default_rng(0).integers(0, 256, (20, 33, 9), dtype=np.uint8)
    assert loaded.predict(larger).shape == (1, 20, 33, 9)
    network = load_network(version.card, store.weights(version))
    corner = networks.answer(network, version.card, larger[:16, :16, :8], CPU)
    assert corner.shape == (2, 16, 16, 8)


def test_what_is_damaged_after_registration_is_found_at_load(store, capsys):
    path = store.file(store.resolve("models:/m/2"), WEIGHTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    assert "damaged or exchanged" in said(capsys, "models", "verify", "m/2", code=2)
    shutil.copy(path, path.with_suffix(".bad"))
