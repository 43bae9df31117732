"""Errors are lines for the person who can mend them, and suggest the word that was meant."""

import pytest

from ensemble.support import errors
from ensemble.support.errors import EnsembleError, nearest, suggestion


@pytest.mark.parametrize("name", ["Recipe", "Manifest", "Card", "Checkpoint", "Registry", "Volume", "Submission"])
def test_whoever_catches_one_error_catches_them_all(name):
    assert issubclass(getattr(errors, f"{name}Error"), EnsembleError)


def test_the_word_that_was_meant_is_suggested_and_no_other():
    assert nearest("mitto", ["nuc", "mito", "er"]) == "; did you mean 'mito'?"
    assert nearest("golgi", ["nuc", "mito", "er"]) == ""
    assert suggestion("golgi", ["nuc", "mito", "er"]) == "; known: er, mito, nuc"
    assert suggestion("golgi", []) == ""
    assert nearest("mito", ["mito", "nuc"]) == "", "never what was asked for"
