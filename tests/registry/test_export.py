"""A model travels as one file, and what is no such file is refused."""

import zipfile
from pathlib import Path

from ensemble.support.errors import CheckpointError, RegistryError
from registry import export as transfer
from registry.store import Registry
from registry.version_folder import GOLDEN, WEIGHTS
from tests.support.empty_registry import store_in
from tests.support.networks_small import refusal
from tests.support.two_versions import said


def test_a_model_travels_as_one_file(both_versions, tmp_path, monkeypatch, capsys):
    said(capsys, "models", "export", "m@champion", str(tmp_path / "m.zip"))
    again = tmp_path / "again.zip"
    transfer.export_model(both_versions, both_versions.resolve("models:/m/1"), again)
    assert again.read_bytes() == (tmp_path / "m.zip").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path / "other").tracking_uri)
    said(capsys, "models", "import", str(again), "--alias", "champion")
    mine, theirs = Registry().resolve("models:/m@champion"), both_versions.resolve("models:/m/1")
    assert (mine.card, mine.sha256) == (theirs.card, theirs.sha256)


def _changed(source: Path, target: Path, change) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name, content in change({name: old.read(name) for name in old.namelist()}).items():
            new.writestr(name, content)
    return target


def test_a_file_that_is_no_exported_model_is_refused_and_nothing_is_registered(both_versions, tmp_path):
    file = tmp_path / "m.zip"
    transfer.export_model(both_versions, both_versions.resolve("models:/m/1"), file)

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
    empty = store_in(tmp_path / "empty")
    for number, (message, (change, error)) in enumerate(cases.items()):
        bad = _changed(file, tmp_path / f"{number}.zip", change)
        assert message in refusal(transfer.import_model, empty, bad, None, error=error)
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:1000])
    assert "damaged or no exported model" in refusal(transfer.import_model, empty, tmp_path / "cut.zip", None)
    assert "no such file" in refusal(transfer.import_model, empty, tmp_path / "none.zip", None, error=RegistryError)
    assert empty.versions() == []
