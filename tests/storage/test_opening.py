"""Arrays and pyramids opened: where they lie, and what they cannot be."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.storage.opening import open_pyramid, open_volume
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.volumes import noise, write_array, write_em


def test_a_plain_array_lies_where_its_attributes_say_and_reads_as_it_was_written(tmp_path):
    values = noise(GRID.shape)
    volume = open_volume(write_array(tmp_path / "a", values, GRID))
    assert volume.grid == GRID
    assert volume.chunks == (16, 16, 16)
    assert np.array_equal(volume.read(GRID.box), values)
    part = Box((3, 14, 39), (5, 18, 40))
    assert np.array_equal(volume.read(part), values[3:5, 14:18, 39:40])


def test_a_multiscale_group_is_its_finest_level(tmp_path):
    values, coarse = noise(GRID.shape), GRID.covering((16, 8, 8))
    place = write_em(tmp_path, "d", [(values, GRID), (noise(coarse.shape), coarse)])
    volume = open_volume(place)
    assert volume.grid == GRID
    assert np.array_equal(volume.read(GRID.box), values)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("chunks", [0, 16, 16], "cannot be held|not readable as Zarr"),
        ("chunks", [4096, 4096, 4096], "its chunks of .* cannot be held; write it in chunks of up to 1 GiB"),
        ("chunks", [16, 16], "not readable as Zarr|not those of Zarr"),
        ("shape", [20, 30, 0], "nothing in it"),
        ("shape", [20, 30, -4], "."),
        ("shape", [20, 30], "2 axes where three are expected|not readable"),
        ("dtype", "<M8[ns]", "."),
        ("dtype", 3, "."),
        ("compressor", {"id": "pickle"}, "."),
        ("fill_value", "z", "."),
        ("zarr_format", 7, "."),
    ],
)
def test_an_array_that_cannot_be_is_told_in_one_line(tmp_path, key, value, told):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    metadata = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps({**metadata, key: value}))
    with pytest.raises(VolumeError, match=told) as caught:
        open_volume(place).read(GRID.box)
    assert str(caught.value).startswith(f"{place}: ")
    assert "\n" not in str(caught.value)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "shuffle", "elementsize": 1}, {"id": "pickle"}]},
        {"filters": [{"id": "json2"}], "compressor": {"id": "pickle"}},
    ],
)
@pytest.mark.parametrize("dtype", ["|u1", "|O"])
def test_nothing_in_a_chunk_is_ever_run(tmp_path, codecs, dtype):
    place = write_array(tmp_path / "a", noise(GRID.shape), GRID)
    metadata = json.loads((place / ".zarray").read_text())
    (place / ".zarray").write_text(json.dumps({**metadata, "filters": None, "dtype": dtype, **codecs}))
    for chunk in place.glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    with pytest.raises(VolumeError):
        open_volume(place).read(GRID.box)
    assert not (tmp_path / "run").exists()


def test_levels_behind_a_url_are_those_of_the_folder(bucket):
    grids = [GRID, GRID.covering((16, 8, 8)), GRID.covering((32, 16, 16))]
    place = write_em(bucket.folder / "em", "d", [(noise(grid.shape), grid) for grid in grids[::-1]])
    url = f"s3://em/{place.relative_to(bucket.folder / 'em')}"
    assert [level.grid for level in open_pyramid(url).levels] == grids
    assert [level.grid for level in open_pyramid(place).levels] == grids
    (place / "s1" / ".zarray").unlink()
    for where in (url, place):
        with pytest.raises(VolumeError, match="s1: there is no Zarr array or group here"):
            open_pyramid(where)
