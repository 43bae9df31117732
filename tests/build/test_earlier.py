"""A submission is replaced by its own recipe's next build, and by no other unless that is said."""

import shutil
import signal
from pathlib import Path

import pytest

from ensemble.build.earlier import made_from, refuse_to_replace, set_aside
from ensemble.cli import main
from ensemble.core import load_manifest
from ensemble.plan import Request, load_recipe, name_of_build
from ensemble.support import EnsembleError, dump_yaml, load_yaml
from tests.support.built import OUT
from tests.support.command import ensemble
from tests.support.processes import go_on
from tests.support.small_build import BUILD, edit, run

NOT_FOR_UPLOAD = "partial: not for upload"


def refused(capsys, *command: str) -> str:
    """The one line of a build that would replace another's submission, which then lies there as it did."""
    before = {path: path.stat().st_mtime_ns for path in OUT.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(list(command)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ensemble: ")]
    assert {path: path.stat().st_mtime_ns for path in OUT.rglob("*") if path.is_file()} == before
    return line


def test_a_build_of_a_part_goes_to_a_folder_of_its_own_and_is_never_called_ready(built, capsys) -> None:
    whole = (OUT / "submission.zip").read_bytes()
    assert run("--crops", "2", "--classes", "nuc,mito") == 0
    part = Path("build/small--crop2--mito-nuc")
    assert f"{NOT_FOR_UPLOAD}, 14 arrays of the manifest left out\nsubmission: {part}" in capsys.readouterr().out
    page = (part / "report.html").read_text()
    assert f"{NOT_FOR_UPLOAD}, 14 arrays of the manifest left out" in page
    assert "ready to upload" not in page
    assert (OUT / "submission.zip").read_bytes() == whole
    assert run("--crops", "2", "--classes", "nuc,mito") == 0  # all is done: said again
    assert NOT_FOR_UPLOAD in capsys.readouterr().out
    assert main(["plan", *BUILD[1:], "--crops", "2"]) == 0
    assert NOT_FOR_UPLOAD in capsys.readouterr().out
    assert run("--crops", "crop1,2") == 0  # all there are
    said = capsys.readouterr().out
    assert "submission: build/small--crop1-crop2/submission.zip" in said
    assert NOT_FOR_UPLOAD not in said
    assert "complete and legal" in Path("build/small--crop1-crop2/report.html").read_text()


def test_another_selection_or_recipe_replaces_nothing_unless_that_is_said(built, capsys) -> None:
    part = [*BUILD, "--crops", "2", "--out", str(OUT)]
    assert refused(capsys, *part) == (
        "ensemble: build/small/submission.zip: holds another selection of arrays, 16 where 8 are asked for; give"
        " another --out, or say --overwrite: then its lock and report are kept in build/small/replaced"
    )
    shutil.copy("small.yaml", "copy.yaml")
    assert main(["build", "copy.yaml", *BUILD[2:]]) == 0  # the very same submission: nothing is replaced
    assert "everything is done already" in capsys.readouterr().err
    edit("copy.yaml", "threshold: 0.5", "threshold: 0.45")
    copy = ["build", "copy.yaml", *BUILD[2:]]
    assert "build/small/submission.zip: was made from small.yaml, another recipe; give another" in refused(
        capsys, *copy
    )
    (OUT / "lock.yaml").unlink()
    edit("small.yaml", "threshold: 0.5", "threshold: 0.4")
    assert "nothing beside it says what it was made from" in refused(capsys, *BUILD)


def test_what_is_replaced_on_purpose_leaves_its_lock_and_report(built, capsys) -> None:
    known = {name: (OUT / name).read_bytes() for name in ("lock.yaml", "report.html", "plan.json")}
    older = (OUT / "submission.zip").read_bytes()
    command = [*BUILD, "--crops", "2", "--out", str(OUT), "--overwrite"]
    go_on(ensemble(*command, stop_at="small/submission.zip"), signal.SIGKILL)
    aside = OUT / "replaced" / "1-small"
    assert (aside / "submission.zip").read_bytes() == older  # until there is a newer
    assert not (OUT / "submission.zip").exists()
    assert main(command[:-1]) == 0  # goes on: nothing is in its way any more
    assert {name: (aside / name).read_bytes() for name in known} == known
    assert not (aside / "submission.zip").exists()
    assert main([*BUILD, "--overwrite"]) == 0
    assert "set aside in build/small/replaced/2-small, where its lock and report are kept" in capsys.readouterr().err
    assert (OUT / "submission.zip").read_bytes() == older
    assert [path.name for path in sorted((OUT / "replaced").iterdir())] == ["1-small", "2-small"]


def test_the_everyday_loop_asks_nothing_wherever_the_project_lies(built, capsys) -> None:
    """Edited in its values and its name, its folder moved: the same recipe."""
    edit("small.yaml", "threshold: 0.5", "threshold: 0.45")
    assert run() == 0
    edit("small.yaml", "name: small", "name: renamed")
    assert run("--out", str(OUT)) == 0
    moved = built / "moved"
    moved.mkdir()
    for name in ("small.yaml", "build"):
        Path(name).rename(moved / name)
    request = Request(moved / "small.yaml", moved / OUT, Path("manifest.csv"))
    refuse_to_replace(request, made_from(request, load_manifest(Path("manifest.csv"))))
    assert set_aside(request, made_from(request, load_manifest(Path("manifest.csv")))) is None
    elsewhere = Request(built / "other.yaml", moved / OUT, Path("manifest.csv"))
    shutil.copy(moved / "small.yaml", "other.yaml")
    with pytest.raises(EnsembleError, match="another recipe"):
        refuse_to_replace(elsewhere, made_from(elsewhere, load_manifest(Path("manifest.csv"))))
    assert load_recipe("other.yaml").name == "renamed"


@pytest.mark.parametrize(
    ("crops", "classes", "name"),
    [
        (None, None, "mine"),
        ([], [], "mine"),
        (["902"], None, "mine--crop902"),
        (["crop902", "902"], None, "mine--crop902"),
        (["b", "a"], ["nuc", "er"], "mine--cropa-cropb--er-nuc"),
        (None, ["nuc"], "mine--nuc"),
    ],
)
def test_a_parts_name_says_what_it_is_of(crops, classes, name) -> None:
    assert name_of_build("mine", crops, classes) == name


def test_a_part_of_many_has_a_short_name_of_its_own() -> None:
    many = [str(number) for number in range(900, 930)]
    name = name_of_build("mine", many, None)
    assert name.startswith("mine--part-")
    assert len(name) < 30
    assert name == name_of_build("mine", many[::-1], None) != name_of_build("mine", many[1:], None)


@pytest.mark.parametrize("recipe", ["x", {}, {"name": "../../../x"}, {"name": ["x"]}, {"name": "a" * 500}])
def test_a_lock_names_no_folder_that_it_should_not(built, recipe) -> None:
    lock = load_yaml(OUT / "lock.yaml", EnsembleError)[0]
    (OUT / "lock.yaml").write_text(dump_yaml({**lock, "recipe": recipe}))
    targets = load_manifest(Path("manifest.csv"))
    request = Request(recipe="small.yaml", out=OUT, overwrite=True)
    place = set_aside(request, made_from(request, targets[:1]))
    assert place == OUT / "replaced" / "1-unknown"
    assert (place / "submission.zip").exists()
