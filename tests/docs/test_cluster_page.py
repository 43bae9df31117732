"""docs/cluster.md and its scripts: shells read them, and what they ask of Dask is what Dask knows."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from distributed.cli import dask_scheduler, dask_worker

from ensemble.support import EXIT_STOPPED
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "cluster.md"
FOLDER = ROOT / "docs" / "cluster"
SHELL = sorted(FOLDER.glob("*.sh"))
PROGRAMS = {"worker": dask_worker.main, "scheduler": dask_scheduler.main}


def tool(name: str) -> str:
    """A program beside this Python, or of the system."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=str(beside)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def lines(script: Path) -> list[str]:
    """Commands, each on a line of its own."""
    return [line.strip() for line in script.read_text().replace("\\\n", " ").splitlines()]


def dask_commands(script: Path) -> list[tuple[str, list[str]]]:
    """The program of Dask that is started, and the options it is given."""
    started = [line.partition("dask ")[2] for line in lines(script) if re.search(r"(^|[ =])dask \w", line)]
    words = [shlex.split(line, comments=True) for line in started if not line.startswith("#")]
    return [(program, [word for word in given if word.startswith("--")]) for program, *given in words]


def test_bash_and_shellcheck_have_nothing_to_say() -> None:
    assert len(SHELL) == 8
    for script in SHELL:
        assert subprocess.run(["bash", "-n", script]).returncode == 0
    done = subprocess.run([tool("shellcheck"), *SHELL], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_dask_knows_every_option_it_is_given() -> None:
    asked = [command for script in SHELL for command in dask_commands(script) if "#" not in command[0]]
    assert {program for program, _ in asked} == PROGRAMS.keys()
    for program, given in asked:
        command = PROGRAMS[program]
        assert isinstance(command, click.Command)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert [word for word in given if word not in known] == []


def test_workers_are_started_alike_everywhere() -> None:
    """But for a single machine's, which are started once and stay."""
    starts = [
        dict.fromkeys(given)
        for script in SHELL
        for program, given in dask_commands(script)
        if program == "worker" and "lifetime" in " ".join(given)
    ]
    assert len(starts) == 2
    assert starts[0] == starts[1]


def test_the_page_leads_to_every_script_and_each_says_how_it_is_used() -> None:
    page = PAGE.read_text()
    for script in FOLDER.iterdir():
        assert f"](cluster/{script.name})" in page
        assert f"docs/cluster/{script.name}" in script.read_text()


def test_the_exit_code_that_scripts_wait_for_is_the_one_of_a_training_that_stopped() -> None:
    text = "\n".join(path.read_text() for path in (PAGE, *FOLDER.glob("train.*.sh")))
    told = re.findall(r"= (\d+) \]|#BSUB -Q (\d+)|\*\*exit code (\d+)\*\*", text)
    assert [int("".join(numbers)) for numbers in told] == [EXIT_STOPPED] * 3
