"""What people see: plain in a pipe, and names as they are."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from ensemble.build import Finding
from ensemble.cli import console
from ensemble.cli.bars import progress
from ensemble.cli.console import leftovers, report
from ensemble.support import plain_line, printable, without_credentials
from registry import Comparison, ModelVersion, Verification
from tests.support.networks_small import card
from tests.support.small_submission import checked, remove, write


def test_a_check_is_told_by_name_and_in_sum_and_a_name_is_never_markup(tmp_path, capsys):
    root = write(tmp_path / "s")
    remove(root, "crop557/ecs")
    (root / "[red]notes").write_text("?")
    report(checked(root))
    said = capsys.readouterr().out
    assert "fault: crop557/ecs: is missing" in said
    assert "warning: [red]notes: is no part of the store" in said
    assert "empty: crop984" in said
    assert said.splitlines()[-1] == "5 arrays checked: 1 fault, 1 warning, 1 empty array"
    assert "\x1b" not in said  # plain where there is no terminal


def test_what_is_freed_is_told_with_its_size(capsys):
    leftovers({Path("work/predictions/a.zarr"): 3 << 20, Path("work/scratch/1"): 1 << 20}, freed=True)
    said = capsys.readouterr().out
    assert "work/predictions/a.zarr" in said
    assert "freed" in said
    leftovers({}, freed=False)
    assert capsys.readouterr().out == "nothing is left over\n"


HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b1m\ra\nensemble: all is well\u202e[red]b[/red][link=http://e]c[/link][/]:smile:\udc80"
SHOWN = r"\x1b]0;x\x07\x1b[2J\x9b1m\ra\nensemble: all is well\u202e[red]b[/red][link=http://e]c[/link][/]:smile:\udc80"


def _table(*cells: str) -> Table:
    table = Table(*cells, title=cells[0])
    table.add_row(*cells)
    return table


def _progress(text: str) -> None:
    with progress() as shown:
        shown.stage(text, 2)
        shown.at(1, text)
        shown.say(text)


def _models(text: str):
    """A version of a model whose words are all hostile, as a registry that others write may hold it."""
    network = card(fine_tuned_from=None).model_copy(
        update={"name": text, "architecture": text, "classes": (text,), "validation": {text: 0.5}, "origin": text}
    )
    network = network.model_copy(update={"merged_from": (text,), "fine_tuned_from": text, "trained_on": (text,)})
    return ModelVersion(text, 1, (text,), network, text, text, text, text, text, datetime.now(UTC), 1, 1, text)


WAYS = {
    "line": console.line,
    "note": console.note,
    "warnings": lambda text: console.warnings([text]),
    "broken": lambda text: console.broken([text]),
    "finding": lambda text: console.finding(Finding("wrong", text, text)),
    "text in a list": lambda text: console.show([text, _table(text, text)]),
    "leftovers": lambda text: console.leftovers({Path(text.replace("/", "|")): 3}, freed=True),
    "models": lambda text: console.models([_models(text)], text),
    "no models": lambda text: console.models([], text),
    "history": lambda text: console.history([_models(text)], [text]),
    "verified": lambda text: console.verified([Verification(_models(text), text, 0, 0)]),
    "compared": lambda text: console.compared(
        Comparison(_models(text), _models(text), {text: (text, text)}, {text: (None, 0.5)}, None)
    ),
    "progress": _progress,
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_what_others_wrote_is_obeyed_by_a_terminal(capsys, monkeypatch, way):
    for shown in (console._OUT, console.ERRORS):
        monkeypatch.setattr(shown, "_force_terminal", True)
        monkeypatch.setattr(shown, "_width", 5000)
    WAYS[way]("harmless")
    own = _escapes(capsys.readouterr())
    WAYS[way](HOSTILE)
    said = capsys.readouterr()
    assert _escapes(said) <= own | {"\x1b[0m"}, "only what colours and bars of our own need"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.out + said.err)
    assert not re.search(r"[^\n\r\x20-\U0010ffff]|[\x7f-\x9f\u202e\udc80]", text)
    assert not any(line.strip().startswith("ensemble: all is well") for line in text.splitlines())
    assert SHOWN in text.replace("|", "/") or plain_line(HOSTILE) in text


def _escapes(said) -> set[str]:
    return set(re.findall(r"\x1b(?:\[[0-9;?]*[A-Za-z]|.)", said.out + said.err))


@given(st.text(min_size=1))
def test_any_text_is_one_line_that_reads_as_it_was_given(text):
    with console._OUT.capture() as captured:
        console.line(text)
    assert captured.get() == f"{printable(without_credentials(text))}\n"
