"""The files of a submission, read so that none can do harm."""

import zipfile

import pytest

from ensemble.submission.archive import open_archive
from ensemble.submission.reader import Submission
from ensemble.submission.writer import write_group_files
from ensemble.support.errors import SubmissionError
from tests.support.small_store import TARGETS
from tests.support.text import one_line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "this is not a zip file"),
        (b"\x1f\x8b a tar perhaps", "this is not a zip file"),
        (b"PK\x03\x04 and no more", "damaged or cut short"),
    ],
)
def test_a_file_that_is_no_zip_is_told_in_one_line(tmp_path, content, reason):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SubmissionError, match=reason) as error:
        Submission.open(tmp_path / "x.zip")
    assert one_line(error).startswith(f"{tmp_path / 'x.zip'}: ")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_zip_cut_short_is_told_in_one_line(packed, kept):
    content = packed.read_bytes()
    packed.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SubmissionError, match="damaged or cut short") as error:
        Submission.open(packed)
    one_line(error)


def test_a_path_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(SubmissionError, match="No such file") as error:
        Submission.open(tmp_path / "x.zip")
    one_line(error)


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("crop557/../../etc/passwd", 0o100644, "leaves the store"),
        ("/etc/passwd", 0o100644, "not a relative name"),
        ("C:\\mito", 0o100644, "not a relative name"),
        ("crop557/mito/0.0.0", 0o120777, "symbolic link"),
    ],
)
def test_members_that_could_do_harm_are_refused(tmp_path, name, mode, reason):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        file.writestr(info, "x")
    with pytest.raises(SubmissionError, match=reason) as error:
        Submission.open(tmp_path / "x.zip")
    assert name in one_line(error)


def test_links_in_an_unzipped_submission_are_refused(tmp_path):
    write_group_files(tmp_path / "store", TARGETS, {})
    (tmp_path / "store/crop557/mito").symlink_to("/etc")
    with pytest.raises(SubmissionError, match="crop557/mito: is a symbolic link"):
        Submission.open(tmp_path / "store")


def test_a_zip_and_its_folder_hold_the_same_files(store, packed):
    folder, zipped = open_archive(store), open_archive(packed)
    assert folder.sizes == zipped.sizes
    assert folder.refused == zipped.refused == ()
    name = "crop557/mito/.zarray"
    assert folder.read(name, 10_000) == zipped.read(name, 10_000) == (store / name).read_bytes()
    for members in (folder, zipped):
        with pytest.raises(ValueError, match="bytes where at most 9 make sense"):
            members.read(name, 9)
        members.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({8: 9}, "is compressed with Deflate64, which the server cannot read; pack it with Deflate"),
        ({8: 93}, "is compressed with Zstandard"),
        ({8: 77}, "is compressed with compression method 77"),
        ({6: 1}, "is encrypted; pack it without a password"),
    ],
)
def test_a_zip_that_only_its_own_tool_can_read_is_named_as_what_it_is(packed, changes, reason):
    """Bytes of each member's header are changed: where it lies, and two bytes further in the directory."""
    content = bytearray(packed.read_bytes())
    for mark, further in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = content.find(mark)
        while place >= 0:
            for offset, value in changes.items():
                content[place + offset + further] = value
            place = content.find(mark, place + 4)
    packed.write_bytes(content)
    with pytest.raises(SubmissionError, match=reason) as error:
        open_archive(packed)
    assert one_line(error).startswith(f"{packed}: ")
