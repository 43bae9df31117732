"""A journal: what was noted is there after any interruption, but for a torn last line; a damaged one says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.support.errors import EnsembleError
from ensemble.support.journal import Journal

ENTRIES = st.lists(st.tuples(st.sampled_from(["key", "band"]), st.integers() | st.text(max_size=4)), max_size=6)


def written(path, entries) -> bytes:
    """What a journal's file holds once these were noted."""
    journal = Journal.open(path)
    for word, value in entries:
        journal.note(word, value)
    journal.close()
    return path.read_bytes()


@given(ENTRIES, st.data())
def test_wherever_a_journal_is_cut_it_goes_on_after_its_last_whole_line(tmp_path_factory, entries, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    whole = written(path, entries)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = entries[: whole[:cut].count(b"\n")]
    again = Journal.open(path)
    again.note("band", "next")
    again.close()
    for word in ("key", "band"):
        expected = [value for noted, value in [*kept, ("band", "next")] if noted == word]
        assert again.noted(word) == Journal.read(path).get(word, []) == expected


@given(ENTRIES.filter(len), st.data())
def test_a_journal_with_any_bit_flipped_never_says_what_was_not_noted(tmp_path_factory, entries, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    whole = bytearray(written(path, entries))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    believed = Journal.read(path)
    assert sum(map(len, believed.values())) < len(entries)
    for word, values in believed.items():  # only the end of the last line may go without the others
        assert values == [value for noted, value in entries[:-1] if noted == word]
    journal = Journal.open(path)
    journal.close()
    assert Journal.read(path) == believed


def test_reading_a_journal_mends_nothing(tmp_path):
    path = tmp_path / "journal"
    torn = written(path, [("key", 1)]) + b'0badc0de ["ba'
    path.write_bytes(torn)
    assert Journal.read(path) == {"key": [1]}
    assert path.read_bytes() == torn


def test_a_journal_that_is_not_there_says_nothing(tmp_path):
    assert Journal.read(tmp_path / "journal") == {}


def test_what_cannot_be_written_is_not_noted(tmp_path):
    journal = Journal.open(tmp_path / "journal")
    with pytest.raises(TypeError):
        journal.note("key", object())
    journal.close()
    assert Journal.read(tmp_path / "journal") == {}


def test_a_link_is_never_written_through(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "journal").symlink_to(tmp_path / "precious")
    with pytest.raises(EnsembleError, match="symbolic link"):
        Journal.open(tmp_path / "journal")
    assert (tmp_path / "precious").read_text() == "mine"
