"""An array whose chunks lie under other names than its own is refused; one without chunks is all background."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from ensemble.core.manifest import Target
from ensemble.plan.recipe import LabelSource, PredictionSource
from ensemble.predict.stored_sources import open_labels, open_predictions
from ensemble.storage.chunk_keys import foreign_chunk, misnamed
from ensemble.storage.opening import open_em, open_volume
from ensemble.storage.truth import open_truth
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.volumes import noise, write_array, write_em

PLACED = {"voxel_size": list(GRID.voxel_size_nm), "translation": list(GRID.origin_nm)}
TARGET = Target("7", "d", GRID, ("mito",))
SCHEMES = {"v2": (".", "/"), "default": (".", "/")}


def write(place: Path, zarr_format: int, name: str, separator: str) -> Path:
    encoding = {"name": name, "separator": separator}
    options = {"zarr_format": zarr_format, "attributes": PLACED, "chunk_key_encoding": encoding, "fill_value": 0}
    zarr.create_array(str(place), data=noise(GRID.shape), chunks=(16, 16, 16), overwrite=True, **options)
    return place


def with_metadata_of(place: Path, other: Path) -> Path:
    """The chunks of one array under the metadata of another."""
    for name in (".zarray", "zarr.json"):
        (place / name).unlink(missing_ok=True)
        if (other / name).exists():
            shutil.copyfile(other / name, place / name)
    return place


@pytest.mark.parametrize(("zarr_format", "scheme"), [(2, "v2"), (3, "v2"), (3, "default")])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("url", ["", "file://"])
def test_the_other_separator_is_named(tmp_path, zarr_format, scheme, separator, url):
    place = write(tmp_path / "a", zarr_format, scheme, separator)
    assert np.array_equal(open_volume(f"{url}{place}").read(GRID.box), noise(GRID.shape))
    other = write(tmp_path / "b", zarr_format, scheme, "/" if separator == "." else ".")
    with pytest.raises(VolumeError, match=rf'none of its chunks is found: .*separator": "[{separator}]" into'):
        open_volume(f"{url}{with_metadata_of(place, other)}")


def test_a_missing_separator_is_a_dot_for_zarr_v2(tmp_path):
    place = write(tmp_path / "a", 2, "v2", "/")
    metadata = json.loads((place / ".zarray").read_text())
    del metadata["dimension_separator"]
    (place / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(VolumeError) as told:
        open_volume(place)
    there = str(told.value).split("there is ")[1].split(",")[0]
    assert (place / there).is_file()
    assert str(told.value) == (
        f"{place}: none of its chunks is found: there is {there}, but by its .zarray they go from 0.0.0 to 1.1.2; "
        'they seem to be separated by "/": write "dimension_separator": "/" into its .zarray'
    )


def test_chunks_of_another_format_or_shape_are_not_found_either(tmp_path):
    v2, v3 = write(tmp_path / "a", 2, "v2", "/"), write(tmp_path / "b", 3, "default", "/")
    with pytest.raises(VolumeError, match="write the array again"):
        open_volume(with_metadata_of(v2, v3))
    beyond = write_array(tmp_path / "c", noise(GRID.shape), GRID)
    for file in beyond.glob("[0-9]*"):
        file.rename(beyond / f"{file.name}.0")
    with pytest.raises(VolumeError, match="write the array again"):
        open_volume(beyond)


def nested(place: Path) -> None:
    for file in list(place.glob("[0-9]*.*.*")):
        (place / file.name.replace(".", "/")).parent.mkdir(parents=True, exist_ok=True)
        file.rename(place / file.name.replace(".", "/"))


READERS = {
    "crop7/mito": lambda root: open_truth(root, TARGET, "mito"),
    "p/mito": lambda root: open_predictions(PredictionSource("{root}/p/{class}"), str(root), TARGET, ["mito"]),
    "l/mito": lambda root: open_labels(LabelSource("{root}/l/{class}"), str(root), TARGET, "mito"),
    "d/d.zarr/recon-1/em/fibsem-uint8/s0": lambda root: open_em(root, "d"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("placed", [True, False])
def test_every_reader_refuses_them_and_takes_an_array_without_chunks(tmp_path, name, placed):
    place = tmp_path / name
    if name.startswith("d/"):
        write_em(tmp_path, "d", [(noise(GRID.shape), GRID)])
    else:
        write_array(place, noise(GRID.shape), GRID)
        if not placed and name == "crop7/mito":
            (place / ".zattrs").unlink()
    READERS[name](tmp_path)
    nested(place)
    with pytest.raises(VolumeError, match="none of its chunks is found"):
        READERS[name](tmp_path)
    for folder in place.glob("[0-9]*"):
        shutil.rmtree(folder)
    assert READERS[name](tmp_path) is not None


def test_looking_stops_at_the_first_chunk_of_its_own():
    def names():
        yield "README"
        yield "0/0/0"
        yield "0.0.0"
        raise AssertionError("looked on")

    assert foreign_chunk(names(), lambda name: name == "0.0.0") is None
    assert foreign_chunk(["README", "0/0/0", ".zattrs"], lambda name: False) == "0/0/0"
    assert foreign_chunk(["README", ".zarray", "zarr.json", "ones/0"], lambda name: False) is None


def test_what_is_told_names_the_key_to_write():
    assert misnamed("0/0/0", ("0.0.0", "1.1.1"), ".zarray").endswith('"dimension_separator": "/" into its .zarray')
    assert misnamed("c.0.0", ("c/0/0", "c/1/1"), "zarr.json").endswith(
        '"separator": "." into the chunk_key_encoding of its zarr.json'
    )
    assert misnamed("0/0", ("0.0.0", "1.1.1"), ".zarray").endswith("write the array again, or its metadata")
