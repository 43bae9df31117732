"""The command line: commands, usage, and exit codes."""

import re
import sys

import numpy as np
import pytest

from ensemble import __version__
from ensemble.cli.program import main
from ensemble.core.grid import Grid
from ensemble.core.manifest import Target, write_manifest
from ensemble.submission.writer import create_array, write_group_files
from tests.support.command import ensemble


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    commands = (
        "build plan doctor tune train postprocess clean demo fetch check score report diff view register models soup"
    )
    assert re.findall(r"^    (\w+)\b", said, re.MULTILINE) == commands.split()


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"ensemble {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["biuld"], ["build"], ["plan", "r.yaml", "--workers", "many"]])
def test_a_command_line_that_is_none_is_told_with_its_usage(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ensemble")


def test_what_a_person_must_mend_is_one_line_and_exit_code_two(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "nothing.zip"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line == "ensemble: nothing.zip: cannot read the submission: No such file or directory"


def test_a_folder_where_a_file_belongs_is_told_by_its_path(capsys, tmp_path):
    assert main(["plan", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ensemble: {tmp_path}: ")


@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is limited in another way")
def test_memory_that_runs_out_is_one_line(tmp_path):
    target = Target("1", "d", Grid((3500,) * 3, (4, 4, 4), (2, 2, 2)), ("mito",))
    write_manifest(tmp_path / "m.csv", [target])
    for root in ("s", "t"):
        create_array(tmp_path / root, target, "mito", np.uint8)
    write_group_files(tmp_path / "s", [target], {})
    arguments = ["score", str(tmp_path / "s"), "--truth", str(tmp_path / "t"), "--manifest", str(tmp_path / "m.csv")]
    process = ensemble(*arguments, before=_lend_little)
    _, errors = process.ended()
    assert process.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("ensemble: ")]
    assert line.startswith("ensemble: out of memory (Unable to allocate 39.9 GiB")
    assert "Traceback" not in errors


def _lend_little():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
