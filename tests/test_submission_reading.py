"""What anyone relies on who reads a submission: every block as it was written, and no harm done."""

import json
import shutil
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from small_store import COARSE, FINE, TARGETS, build, labels

from ensemble.submission.reader import Submission
from ensemble.submission.writer import pack, write_group_files
from ensemble.support.errors import SubmissionError


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("store") / "store"
    build(root, {"unclaimed": {"crop557": ["er"]}})
    return root


@pytest.fixture
def packed(store, tmp_path) -> Path:
    pack(store, tmp_path / "submission.zip", TARGETS)
    return tmp_path / "submission.zip"


@pytest.mark.parametrize("unzipped", [False, True])
def test_any_block_reads_as_it_was_written(store, packed, unzipped):
    truth = labels(FINE, 0)
    with Submission.open(store if unzipped else packed) as submission:
        assert submission.attributes == {"unclaimed": {"crop557": ["er"]}}
        assert submission.crops == ("crop557", "crop984")
        assert submission.names("crop557") == ("er", "mito")
        array = submission.array("crop557", "mito")
        assert (array.shape, array.dtype, array.chunks) == ((70, 130, 40), np.dtype("<u2"), (64, 128, 40))
        assert array.grid == FINE.grid
        for block in (np.s_[0:70, 0:130, 0:40], np.s_[60:66, 120:129, 3:9], np.s_[65:70, 128:130, 0:1]):
            np.testing.assert_array_equal(array.read(block), truth[block])
        part = submission.read("crop984", "nuc", np.s_[1:3, 0:6, 2:7])
        np.testing.assert_array_equal(part, labels(COARSE, 1)[1:3, 0:6, 2:7])
        assert not submission.read("crop557", "er", np.s_[0:70, 0:130, 0:40]).any()


@pytest.mark.parametrize("compressor", [None, numcodecs.Blosc("lz4", shuffle=2), numcodecs.GZip(), numcodecs.LZ4()])
@pytest.mark.parametrize(("order", "separator"), [("C", "/"), ("F", ".")])
def test_arrays_other_tools_wrote_read_the_same(tmp_path, compressor, order, separator):
    write_group_files(tmp_path, [COARSE], {})
    array = zarr.create_array(
        str(tmp_path / "crop984/nuc"),
        shape=COARSE.grid.shape,
        chunks=(2, 4, 3),
        dtype="<u2",
        compressors=compressor,
        filters=[numcodecs.Delta("<u2")],
        fill_value=9,
        order=order,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )
    truth = labels(COARSE, 5)
    truth[2:4] = 9
    array[:2] = truth[:2]
    array[4:] = truth[4:]
    with Submission.open(tmp_path) as submission:
        for block in (np.s_[0:5, 0:6, 0:7], np.s_[1:4, 3:5, 2:4]):
            np.testing.assert_array_equal(submission.read("crop984", "nuc", block), truth[block])


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


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


def test_a_zip_without_a_store_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(SubmissionError, match=r"there is no \.zgroup at its root"):
        Submission.open(tmp_path / "x.zip")


def edited(store: Path, place: Path, name: str, **changes) -> Path:
    """A copy of the store with some keys of a metadata file changed; None takes a key away."""
    shutil.copytree(store, place)
    data = json.loads((place / name).read_text()) | changes
    (place / name).write_text(json.dumps({key: value for key, value in data.items() if value != "gone"}))
    return place


def test_a_codec_that_runs_code_is_unknown_and_runs_nothing(store, tmp_path):
    place = edited(store, tmp_path / "x", "crop984/nuc/.zarray", compressor={"id": "pickle"})
    trap = b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    (place / "crop984/nuc/0.0.0").write_bytes(trap)
    with Submission.open(place) as submission, pytest.raises(SubmissionError, match="unknown codec 'pickle'"):
        submission.read("crop984", "nuc", np.s_[0:5, 0:6, 0:7])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chunks": "gone"}, "lacks 'chunks'"),
        ({"dtype": "|O"}, "not one of numbers"),
        ({"dtype": "nonsense"}, "nonsense"),
        ({"chunks": [10**4, 10**4, 10**4]}, "use smaller ones"),
        ({"chunks": [5, 6]}, "differ in rank"),
        ({"shape": [5, 6, -7]}, "whole numbers above 0"),
        ({"zarr_format": 3}, "zarr_format is 3"),
        ({"compressor": {"id": "zstd9"}}, "unknown codec 'zstd9'; did you mean 'zstd'"),
        ({"order": "Z"}, "is not Zarr v2"),
    ],
)
def test_metadata_that_cannot_be_followed_names_the_array(store, tmp_path, changes, reason):
    place = edited(store, tmp_path / "x", "crop984/nuc/.zarray", **changes)
    with Submission.open(place) as submission, pytest.raises(SubmissionError, match=reason) as error:
        submission.array("crop984", "nuc")
    assert one_line(error).startswith(f"{place}: crop984/nuc: ")


def test_a_damaged_chunk_is_named(store, tmp_path):
    place = edited(store, tmp_path / "x", "crop984/nuc/.zarray")
    chunk = place / "crop557/mito/1.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with Submission.open(place) as submission:
        with pytest.raises(SubmissionError, match=r"crop557/mito: chunk 1\.0\.0 cannot be decoded"):
            submission.read("crop557", "mito", np.s_[0:70, 0:130, 0:40])
        assert submission.read("crop557", "mito", np.s_[0:64, 0:128, 0:40]).any()


def test_an_array_without_a_place_says_so_when_asked_where_it_lies(store, tmp_path):
    place = edited(store, tmp_path / "x", "crop984/nuc/.zattrs", translation="gone")
    with Submission.open(place) as submission:
        array = submission.array("crop984", "nuc")
        with pytest.raises(SubmissionError, match="attributes lack 'translation'"):
            _ = array.grid


def test_a_missing_crop_or_array_is_told(packed):
    with Submission.open(packed) as submission:
        with pytest.raises(SubmissionError, match="crop985/nuc: is missing, as the whole crop is"):
            submission.array("crop985", "nuc")
        with pytest.raises(SubmissionError, match="crop557/ld: is missing"):
            submission.array("crop557", "ld")
