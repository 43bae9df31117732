"""What is opened to be read, or told in one line."""

import json
import pickle
from pathlib import Path

import pytest
import zarr

from ensemble.storage.nodes import exist, open_node
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.volumes import noise, write_array


def test_an_array_opens_and_what_is_none_is_told(tmp_path):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    assert isinstance(open_node(place), zarr.Array)
    for other, message in ((tmp_path / "b", "there is no such array"), (tmp_path, "no Zarr array or group here")):
        with pytest.raises(VolumeError, match=message):
            open_node(other)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_files_are_found_under_a_path_and_under_a_url(tmp_path, scheme):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    assert exist(f"{scheme}{place}", ["1.0.2", "1.0.3"]) == [True, False]


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("stage", ["filters", "compressor"])
def test_a_codec_that_runs_what_a_chunk_says_is_refused_and_nothing_runs(tmp_path, stage):
    place, trace = write_array(tmp_path / "a", noise(GRID.shape), GRID), tmp_path / "trace"
    codec = {"id": "pickle", "protocol": 5}
    metadata = json.loads((place / ".zarray").read_text()) | {"filters": None, "compressor": None}
    metadata[stage] = [codec] if stage == "filters" else codec
    (place / ".zarray").write_text(json.dumps(metadata))
    for chunk in place.glob("*.*.*"):
        chunk.write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(VolumeError, match="not readable as Zarr"):
        open_node(place)[...]
    assert not trace.exists()


@pytest.mark.parametrize(
    "place",
    ["github://o:r@/x", "ssh://h/x", "reference://x", "python://x", "memory://x", "HTTPX://x", "simplecache::file://{}",
     "filecache::{}", "zip://a::file://{}", "dir::{}", "s3://a::file://{}"],
)  # fmt: skip
def test_no_other_way_is_gone_than_the_plain_ones(tmp_path, place):
    inside = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    with pytest.raises(VolumeError, match="give a path, or a URL of file, gs, http, https, s3"):
        open_node(place.format(inside))


def test_a_plain_way_is_gone(tmp_path):
    inside = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    assert isinstance(open_node(f"file://{inside}"), zarr.Array)
