"""Arrays in a submission, written by whatever tool, read block by block and never trusted."""

import json
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from ensemble.core.box import Box
from ensemble.submission.reader import Submission
from ensemble.submission.stored_array import CODECS
from ensemble.submission.writer import write_group_files
from ensemble.support.errors import SubmissionError
from tests.support.small_store import COARSE, FINE, labels
from tests.support.text import one_line


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
        for box in (COARSE.grid.box, Box((1, 3, 2), (4, 5, 4))):
            np.testing.assert_array_equal(submission.read("crop984", "nuc", box), truth[box.slices])


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
        submission.read("crop984", "nuc", COARSE.grid.box)
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
            submission.read("crop557", "mito", FINE.grid.box)
        assert submission.read("crop557", "mito", Box.of_shape((64, 128, 40))).any()


def test_an_array_without_a_place_says_so_when_asked_where_it_lies(store, tmp_path):
    place = edited(store, tmp_path / "x", "crop984/nuc/.zattrs", translation="gone")
    with Submission.open(place) as submission:
        array = submission.array("crop984", "nuc")
        with pytest.raises(SubmissionError, match="attributes lack 'translation'"):
            _ = array.grid


def test_chunks_are_found_by_what_was_written_and_read_alone(store):
    with Submission.open(store) as submission:
        mito, er = submission.array("crop557", "mito"), submission.array("crop557", "er")
        assert mito.chunks_in(Box((60, 0, 0), (70, 128, 40))) == [(0, 0, 0), (1, 0, 0)]
        assert mito.key((1, 0, 0)) == "1.0.0"
        assert np.array_equal(mito.read_chunk((1, 1, 0)), labels(FINE, 0)[64:, 128:])
        assert er.chunks_in(FINE.grid.box) == []


def test_codecs_that_are_known_are_numcodecs_own_and_none_of_them_runs_code():
    assert set(CODECS) <= set(numcodecs.registry.codec_registry)
    assert not set(CODECS) & {"pickle", "json2", "msgpack2", "vlen-utf8", "categorize"}
