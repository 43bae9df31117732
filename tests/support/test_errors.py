"""Errors are lines for the person who can mend them, and suggest the word that was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.support import errors
from ensemble.support.errors import EnsembleError, nearest, suggestion
from ensemble.support.shown_text import plain_line


@pytest.mark.parametrize("name", ["Recipe", "Manifest", "Card", "Checkpoint", "Registry", "Volume", "Submission"])
def test_whoever_catches_one_error_catches_them_all(name):
    assert issubclass(getattr(errors, f"{name}Error"), EnsembleError)


@given(st.text(max_size=3000))
def test_any_message_is_one_line_that_harms_no_terminal(text):
    message = str(EnsembleError(text))
    assert message.isprintable() and len(message) <= 1000
    assert len(message.splitlines()) <= 1
    assert message == plain_line(message)


def test_the_word_that_was_meant_is_suggested_and_no_other():
    assert nearest("mitto", ["nuc", "mito", "er"]) == "; did you mean 'mito'?"
    assert nearest("golgi", ["nuc", "mito", "er"]) == ""
    assert suggestion("golgi", ["nuc", "mito", "er"]) == "; known: er, mito, nuc"
    assert suggestion("golgi", []) == ""
    assert nearest("mito", ["mito", "nuc"]) == "", "never what was asked for"
