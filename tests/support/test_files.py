"""Files are written at once or not at all, and read for what they are."""

import errno
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.support.errors import EnsembleError
from ensemble.support.files import (
    alone_with,
    held_if_free,
    in_turn,
    is_disk_full,
    one_line,
    read_json,
    read_sealed,
    refuse_links,
    replacing,
    write_json,
    write_sealed,
    write_text,
)


def test_what_is_written_is_read_and_folders_are_made(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"x": [1, None]}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_file_that_is_not_there_or_damaged_says_nothing(tmp_path):
    (tmp_path / "torn.json").write_text('{"x": [1, ')
    assert read_json(tmp_path / "torn.json") is None
    assert read_json(tmp_path / "absent.json") is None


def test_a_text_that_cannot_be_written_leaves_the_older_one(tmp_path):
    write_text(tmp_path / "notes", "older")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "notes", "newer \ud800")
    assert (tmp_path / "notes").read_text() == "older"


def test_an_error_of_many_lines_is_told_in_one():
    assert one_line(ValueError("first\n  second\n")) == "first second"
    assert one_line(KeyError()) == "KeyError"


def test_a_long_line_is_cut_to_its_width():
    assert one_line("a line of words", 9) == "a line o…"


def test_a_sealed_file_says_what_was_written(tmp_path):
    write_sealed(tmp_path / "state", {"x": [1, None, "ü"]})
    assert read_sealed(tmp_path / "state") == {"x": [1, None, "ü"]}
    assert read_sealed(tmp_path / "absent") is None


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3), st.data())
def test_a_sealed_file_with_any_bit_flipped_says_nothing(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("sealed") / "state"
    write_sealed(path, values)
    whole = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    assert read_sealed(path) is None
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert read_sealed(path) is None


def write_torn(folder):
    folder.mkdir()
    (folder / "torn").touch()
    folder.write_text("it is a folder")


def test_a_folder_takes_the_place_of_the_older_one_or_leaves_it(tmp_path):
    folder = tmp_path / "folder"
    for name in ("older", "newer"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / name).touch()
    assert [path.name for path in folder.iterdir()] == ["newer"]
    with pytest.raises(IsADirectoryError), replacing(folder) as partial:
        write_torn(partial)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "newer"]


def test_two_do_not_hold_one_lock(tmp_path):
    with (
        alone_with(tmp_path / "lock", "first"),
        pytest.raises(EnsembleError, match="at work here"),
        alone_with(tmp_path / "lock", "another is at work here"),
    ):
        pass
    with alone_with(tmp_path / "lock", "it is free again"):
        pass


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.ENOENT, False)])
def test_no_room_is_told_from_other_faults(number, full):
    assert is_disk_full(OSError(number, "")) == full


def test_a_lock_is_held_by_one_and_free_again_after_it(tmp_path):
    with held_if_free(tmp_path / "lock") as mine:
        assert mine
        with held_if_free(tmp_path / "lock") as again:
            assert not again
    with held_if_free(tmp_path / "lock") as mine:
        assert mine


def test_who_takes_turns_is_never_there_with_another(tmp_path):
    inside, most = [], []

    def enter() -> None:
        for _ in range(20):
            with in_turn(tmp_path / "store" / "lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), set(most)) == (60, {1})


def test_a_link_is_refused_wherever_it_lies(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").write_text("x")
    refuse_links(tmp_path / "a", tmp_path / "nothing", tmp_path / "a/file")
    for link in (tmp_path / "link", tmp_path / "a/link", tmp_path / "a/b/c/link"):
        for target in (tmp_path / "a/file", tmp_path / "a/b", tmp_path / "nothing"):
            link.symlink_to(target)
            with pytest.raises(EnsembleError, match=f"{link}: is a symbolic link"):
                refuse_links(tmp_path / "a", link)
            link.unlink()


def test_a_lock_that_is_a_link_is_not_opened(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    for held in (in_turn, held_if_free):
        with pytest.raises(EnsembleError, match="symbolic link"), held(tmp_path / "lock"):
            pass
    assert (tmp_path / "precious").read_text() == "mine"
