"""What a build is asked for, and the same again from its folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from ensemble.plan.request import Request, predictions_of, registry_in, registry_of
from ensemble.storage import DEFAULT_EM_CACHE_BYTES
from ensemble.support.errors import EnsembleError


def test_a_build_is_asked_for_again_by_its_folder_alone(place, monkeypatch, tmp_path_factory) -> None:
    asked = Request("small.yaml", place / "out", Path("manifest.csv"), classes=["nuc"], device="cpu", precision="bf16")
    asked.keep()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = Request.again(place / "out")
    assert (again.recipe, again.manifest) == (str(place / "small.yaml"), place / "manifest.csv")
    assert (again.data_root, again.out) == (str(place / "data"), place / "out")
    assert (again.crops, again.classes, again.device, again.precision) == (None, ["nuc"], "cpu", "bf16")


def test_what_is_written_down_does_not_depend_on_the_working_directory(place) -> None:
    request = Request("small.yaml", Path("out"), Path("manifest.csv"), crops=["1"], absent_is_zero=True)
    assert request.as_plain() == {
        "recipe": str(place / "small.yaml"),
        "manifest": str(place / "manifest.csv"),
        "data_root": str(place / "data"),
        "crops": ["1"],
        "classes": None,
        "device": "auto",
        "precision": "auto",
        "absent_is_zero": True,
        "cache": None,
        "em_cache_bytes": DEFAULT_EM_CACHE_BYTES,
    }
    assert replace(request, data_root="s3://bucket/em").as_plain()["data_root"] == "s3://bucket/em"


@pytest.mark.parametrize(
    ("out", "store"),
    [("build/mine", "build/predictions"), ("mine", "predictions"), ("/a/b", "/a/predictions")],
)
def test_builds_beside_each_other_share_predictions(out: str, store: str) -> None:
    assert Request("r.yaml", Path(out)).predictions == Path(store)
    assert Request("r.yaml", Path(out), cache=Path("else")).predictions == Path("else")


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_a_folder_that_is_named_by_where_one_stands_is_a_builds_too(out: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert Request("r.yaml", Path(out)).predictions.resolve() == Path(out).resolve().parent / "predictions"


def test_the_store_that_a_build_used_is_known_from_its_folder(place) -> None:
    assert predictions_of(place / "out") == place / "predictions"
    Request("small.yaml", place / "out", Path("manifest.csv"), cache=Path("kept")).keep()
    assert predictions_of(place / "out") == Request.again(place / "out").predictions == place / "kept"


def test_a_folder_without_a_build_is_told(tmp_path) -> None:
    with pytest.raises(EnsembleError, match="holds no build to go by; run ensemble build RECIPE"):
        Request.again(tmp_path)


def test_a_note_of_a_build_that_is_damaged_is_not_gone_by(place) -> None:
    request = Request("small.yaml", place / "out", Path("manifest.csv"), classes=["nuc"])
    request.keep()
    note = place / "out/work/request.json"
    note.write_text(note.read_text().replace("nuc", "nuk"))
    with pytest.raises(EnsembleError, match="holds no build to go by"):
        Request.again(place / "out")


def test_a_build_whose_folder_holds_a_registry_takes_its_models_from_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.org:5000")
    assert registry_of(tmp_path).tracking_uri == "http://example.org:5000"
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    assert registry_of(tmp_path).tracking_uri == registry_in(tmp_path).tracking_uri
    assert registry_in(tmp_path).tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
