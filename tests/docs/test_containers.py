"""Dockerfile and apptainer.def: they install the same, and what they copy is what is installed."""

import re
import subprocess
import tomllib

from tests.docs.test_cluster_page import tool
from tests.support.processes import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()


def installing(text: str) -> list[str]:
    """The commands that install something, without how they are joined."""
    return re.findall(r"(?:pip|apt-get) install [^;&\\\n]+", text)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_install_the_same_from_the_same_system() -> None:
    assert len(installing(DOCKERFILE)) == 4
    assert sorted(installing(DOCKERFILE)) == sorted(installing(APPTAINER))
    (system,) = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    version = re.search(r"^ARG PYTHON=(\S+)", DOCKERFILE, re.MULTILINE)[1]
    assert f"From: {system.replace('${PYTHON}', version)}\n" in APPTAINER
    (index,) = {re.search(r"TORCH_CPU_INDEX=(https\S+)", text)[1] for text in (DOCKERFILE, APPTAINER)}
    assert index == "https://download.pytorch.org/whl/cpu"


def test_what_is_copied_is_all_that_installing_takes_and_all_that_a_build_may_see() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    files = ["constraints.txt", "pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted([*files, *packages])
    section = APPTAINER.partition("%files")[2].partition("%post")[0]
    assert sorted(re.findall(r"^ +(\S+) /src/$", section, re.MULTILINE)) == sorted([*files, *packages])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted([*files, *packages])


def test_it_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE) == ["1000"]
