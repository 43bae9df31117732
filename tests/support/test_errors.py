"""Errors are lines for the person who can mend them, and suggest the word that was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.support import errors
from ensemble.support.errors import EnsembleError, nearest, plain_line, suggestion


@pytest.mark.parametrize("name", ["Recipe", "Manifest", "Card", "Checkpoint", "Registry", "Volume", "Submission"])
def test_whoever_catches_one_error_catches_them_all(name):
    assert issubclass(getattr(errors, f"{name}Error"), EnsembleError)


@given(st.text(max_size=3000))
def test_any_message_is_one_line_that_harms_no_terminal(text):
    message = str(EnsembleError(text))
    assert message.isprintable() and len(message) <= 1000
    assert len(message.splitlines()) <= 1
    assert message == plain_line(message)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b\n  c", "a  b c"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("a" * 1001, "a" * 750 + " … " + "a" * 200),
        ("/data/ä ö/5%", "/data/ä ö/5%"),
    ],
)
def test_breaks_become_spaces_and_control_characters_are_written_out(text, shown):
    assert plain_line(text) == shown


def test_the_word_that_was_meant_is_suggested_and_no_other():
    assert nearest("mitto", ["nuc", "mito", "er"]) == "; did you mean 'mito'?"
    assert nearest("golgi", ["nuc", "mito", "er"]) == ""
    assert suggestion("golgi", ["nuc", "mito", "er"]) == "; known: er, mito, nuc"
    assert suggestion("golgi", []) == ""
    assert nearest("mito", ["mito", "nuc"]) == "", "never what was asked for"
