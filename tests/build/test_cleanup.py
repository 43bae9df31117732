"""What a build keeps to go on from: shown and freed once its recipe no longer needs it."""

import shutil
from pathlib import Path

import pytest

from ensemble.build.cleanup import free, leftovers
from ensemble.cli import main
from ensemble.support.errors import EnsembleError
from tests.support.small_build import BUILD, RECIPE, edit, predictions, run

OUT = "build/small"


def cleaned(capsys, *options: str) -> str:
    capsys.readouterr()
    assert main(["clean", OUT, *options]) == 0
    return capsys.readouterr().out


def test_what_the_recipe_no_longer_needs_is_shown_and_freed(built, capsys) -> None:
    assert cleaned(capsys) == "nothing is left over\n"
    first, zipped = predictions(built), Path(OUT, "submission.zip").read_bytes()
    edit("small.yaml", 'fine@champion"', 'fine@champion", tta: mirror')
    assert run() == 0
    both = predictions(built)
    assert set(first) < set(both)
    assert "to be freed" in cleaned(capsys, "--dry-run")
    assert predictions(built) == both
    assert "freed" in cleaned(capsys)
    left = predictions(built)
    gone = set(both) - set(left)
    assert gone  # what the first recipe alone used
    assert gone < set(first)  # the other model's predictions stay
    assert run() == 0  # nothing that is in use has gone
    assert predictions(built) == left
    Path("small.yaml").write_text(RECIPE)
    assert run() == 0
    assert Path(OUT, "submission.zip").read_bytes() == zipped


def test_arrays_of_crops_left_out_and_torn_files_go_too(built, capsys) -> None:
    torn = Path(OUT, "work/submission.zarr/crop1/mito/0.0.0.77.1.part")
    torn.write_bytes(b"half a chunk")
    assert str(torn) in cleaned(capsys)
    assert not torn.exists()
    assert run("--crops", "2", "--out", OUT, "--overwrite") == 0
    said = cleaned(capsys)
    assert "crop1/mito" in said
    assert "crop2" not in said
    assert not Path(OUT, "work/submission.zarr/crop1/mito").exists()


def test_all_leaves_the_results_alone(built, capsys) -> None:
    zipped = Path(OUT, "submission.zip").read_bytes()
    cleaned(capsys, "--all")
    assert [path.name for path in Path(OUT, "work").iterdir()] == ["lock"]
    assert Path(OUT, "submission.zip").read_bytes() == zipped
    assert run() == 0
    assert Path(OUT, "submission.zip").read_bytes() == zipped


def test_where_nothing_was_built_there_is_nothing_to_free(tmp_path) -> None:
    with pytest.raises(EnsembleError, match="no build was made here; give the folder that was a build's --out"):
        leftovers(tmp_path)


def test_what_is_left_over_has_its_size_on_disk_and_goes(tmp_path) -> None:
    place = tmp_path / "work" / "submission.zarr" / "crop1" / "mito"
    place.mkdir(parents=True)
    (place / "0.0.0").write_bytes(bytes(range(256)) * 100)
    found = leftovers(tmp_path)
    assert list(found) == [place]
    assert found[place] >= 25_600
    free(tmp_path, found)
    assert leftovers(tmp_path) == {}


def test_a_prediction_stays_while_any_build_needs_it_and_goes_with_the_last(built, capsys) -> None:
    other = Path("other.yaml")
    other.write_text(RECIPE.replace("name: small", "name: other").replace("threshold: 0.5", "threshold: 0.4"))
    before = predictions(built)
    assert main(["build", "other.yaml", *BUILD[2:]]) == 0
    assert "4 of 4 predictions found\n" in capsys.readouterr().err
    assert predictions(built) == before
    assert "predictions" not in cleaned(capsys, "--all")
    assert predictions(built) == before  # the other needs them
    shutil.rmtree("build/other")
    assert main(["clean", "build"]) == 0
    assert "build/predictions/" in capsys.readouterr().out
    assert predictions(built) == {}
    assert run() == 0
    assert set(predictions(built)) == set(before)


def test_a_store_elsewhere_is_known_to_the_builds_folder(built, capsys, tmp_path_factory) -> None:
    store = tmp_path_factory.mktemp("elsewhere") / "store"
    assert main([*BUILD, "--cache", str(store), "--out", "deep/down/small"]) == 0
    assert "0 of 4 predictions found, 4 to compute" in capsys.readouterr().err
    assert len(list(store.glob("*.zarr"))) == 4
    for folder in ("deep/down/small", str(store)):
        assert main(["clean", folder]) == 0
        assert capsys.readouterr().out == "nothing is left over\n"
    shutil.rmtree("deep")
    assert main(["clean", str(store)]) == 0
    assert not list(store.glob("*.zarr"))


def test_what_another_build_begins_to_need_meanwhile_is_not_freed(built) -> None:
    Path(OUT).rename("build/gone")
    shutil.rmtree("build/gone/work")
    found = leftovers(Path("build"))
    assert len(found) == 8
    assert run() == 0
    kept = predictions(built)
    free(Path("build"), found)
    assert predictions(built) == kept
