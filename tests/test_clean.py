"""What a build keeps to go on from: shown and freed once its recipe no longer needs it."""

import time
from pathlib import Path

from small_build import BUILD, RECIPE, edit, predictions, run, start, wait_for

from ensemble.cli import main

OUT = "build/small"


def cleaned(capsys, *options: str) -> str:
    capsys.readouterr()
    assert main(["clean", OUT, *options]) == 0
    return capsys.readouterr().out


def test_what_the_recipe_no_longer_needs_is_shown_and_freed(place, capsys) -> None:
    assert run() == 0
    assert cleaned(capsys) == "nothing is left over\n"
    first, zipped = predictions(place), Path(OUT, "submission.zip").read_bytes()
    edit("small.yaml", 'fine@champion"', 'fine@champion", tta: mirror')
    assert run() == 0
    both = predictions(place)
    assert set(first) < set(both)
    assert "to be freed" in cleaned(capsys, "--dry-run")
    assert predictions(place) == both
    assert "freed" in cleaned(capsys)
    left = predictions(place)
    gone = set(both) - set(left)
    assert gone  # what the first recipe alone used
    assert gone < set(first)  # the other model's predictions stay
    assert run() == 0  # nothing that is in use has gone
    assert predictions(place) == left
    Path("small.yaml").write_text(RECIPE)
    assert run() == 0
    assert Path(OUT, "submission.zip").read_bytes() == zipped


def test_arrays_of_crops_left_out_and_torn_files_go_too(place, capsys) -> None:
    assert run() == 0
    torn = Path(OUT, "work/submission.zarr/crop1/mito/0.0.0.77.1.part")
    torn.write_bytes(b"half a chunk")
    assert str(torn) in cleaned(capsys)
    assert not torn.exists()
    assert run("--crops", "2") == 0
    said = cleaned(capsys)
    assert "crop1/mito" in said
    assert "crop2" not in said
    assert not Path(OUT, "work/submission.zarr/crop1/mito").exists()


def test_all_leaves_the_results_alone(place, capsys) -> None:
    assert run() == 0
    zipped = Path(OUT, "submission.zip").read_bytes()
    cleaned(capsys, "--all")
    assert [path.name for path in Path(OUT, "work").iterdir()] == ["lock"]
    assert Path(OUT, "submission.zip").read_bytes() == zipped
    assert run() == 0
    assert Path(OUT, "submission.zip").read_bytes() == zipped


def test_nothing_is_freed_while_a_build_is_at_work_or_where_there_was_none(place, capsys) -> None:
    assert main(["clean", "elsewhere"]) == 2
    assert "elsewhere: no build was made here" in capsys.readouterr().err
    process = start()
    wait_for("work/predictions/*.zarr/*.*.*.*", process)
    if process.poll() is None:
        assert main(["clean", OUT, "--all"]) == 2
        assert "another build is at work here" in capsys.readouterr().err
    time.sleep(0.1)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert main([*BUILD]) == 0
