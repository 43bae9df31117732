"""Options that several commands share."""

import argparse
from pathlib import Path

import pytest

from ensemble.cli.options import add_request, budget_of, default_out, names, request_of
from ensemble.support.errors import EnsembleError


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_request(parser)
    return parser.parse_args(arguments)


def test_a_list_of_names_may_have_blanks_and_ends():
    assert names(" mito, nuc,,er,") == ["mito", "nuc", "er"]


@pytest.mark.parametrize("option", ["--crops", "--classes"])
@pytest.mark.parametrize("said", ["", ",", " , ,"])
def test_a_list_of_none_is_not_taken_for_all(option, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed("final.yaml", option, said)
    assert ended.value.code == 2
    assert f"{option}: {said!r} names nothing" in capsys.readouterr().err


def test_what_is_said_is_what_is_asked_for():
    said = [
        "final.yaml",
        "--crops",
        "1,2",
        "--device",
        "cpu",
        "--memory",
        "1.5",
        "--workers",
        "3",
        "--update-lock",
        "--cache",
        "c",
    ]
    request = request_of(parsed(*said), Path("out"))
    assert (request.recipe, request.out) == ("final.yaml", Path("out"))
    assert (request.crops, request.classes) == (["1", "2"], None)
    assert (request.data_root, request.manifest, request.update_lock) == ("data", None, True)
    assert request.predictions == Path("c")
    assert (request.budget.memory_bytes, request.budget.workers, request.budget.on_cpu) == (3 << 29, 3, True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        *(([f"--workers={n}"], f"--workers {n}: between 1 and 1024") for n in (0, -1, 10**9)),
        *(([f"--memory={n}"], f"--memory {n}: say a number of GiB") for n in ("0", "nan", "-1", "inf", "1e+30")),
        (["--memory=1e999"], "--memory inf: say a number of GiB"),
    ],
)
def test_limits_that_make_no_sense_are_refused(said, message):
    with pytest.raises(EnsembleError) as caught:
        budget_of(parsed("final.yaml", *said))
    assert str(caught.value).startswith(message)


def test_a_recipe_that_is_shipped_is_told_from_one_of_that_name_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    request_of(parsed("final.yaml"), Path("out"))
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("recipe: ")
    assert said.endswith("recipes/final.yaml, which is shipped; there is no file final.yaml here")
    Path("final.yaml").write_text("name: mine\n")
    request_of(parsed("final.yaml"), Path("out"))
    assert capsys.readouterr().err == ""


def test_what_is_built_of_a_part_lies_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_out(parsed("final.yaml")) == Path("build/final")
    assert default_out(parsed("final.yaml", "--crops", "902,crop557", "--classes", "er")) == Path(
        "build/final--crop557-crop902--er"
    )
    assert default_out(parsed("final.yaml"), "-tune") == Path("build/final-tune")
