"""Files, metadata and attributes of a submission: a fault made by hand in a good one is the only one found."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ensemble.core.manifest import Target
from ensemble.submission.checking import check
from ensemble.submission.layout import metadata_faults
from ensemble.submission.reader import Submission
from ensemble.submission.writer import create_array
from ensemble.support.errors import SubmissionError
from tests.support.faulty import as_dtype, metadata, the_only_fault_is, write_text
from tests.support.small_submission import (
    SHAPE,
    SMALL,
    TARGET,
    TARGETS,
    checked,
    cut_chunk,
    remove,
    rewrite,
    write,
    zipped,
)


def as_group(root: Path) -> None:
    (root / "crop557/ecs").rename(root / "s0")
    (root / "crop557/ecs").mkdir()
    (root / "s0").rename(root / "crop557/ecs/s0")
    (root / "crop557/ecs/.zgroup").write_text('{"zarr_format": 2}')


def as_ome_group(root: Path) -> None:
    as_group(root)
    (root / "crop557/ecs/.zattrs").write_text('{"multiscales": []}')


def no_prefix(root: Path) -> None:
    (root / "crop984").rename(root / "984")


def not_asked_for(root: Path) -> None:
    create_array(root, TARGET, "ld", np.uint8)


def misspelt(root: Path) -> None:
    create_array(root, TARGET, "nucc", np.uint8)


def crop_not_asked_for(root: Path) -> None:
    create_array(root, Target("9", "x", SMALL.grid, ()), "nuc", np.uint8)


def no_longer_asked_for(root: Path) -> None:
    create_array(root, SMALL, "mito", np.uint8)


def as_v3(root: Path) -> None:
    remove(root, "crop557/ecs")
    (root / "crop557/ecs/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')


def second_store(root: Path) -> None:
    (root / "old.zarr").mkdir()
    (root / "old.zarr/.zgroup").write_text('{"zarr_format": 2}')


def wrong_shape(root: Path) -> None:
    rewrite(root, "ecs", np.ones((70, 20, 31), np.uint8))


def wrong_rank(root: Path) -> None:
    rewrite(root, "ecs", np.ones((1, *SHAPE), np.uint8), chunks=(1, 64, 20, 30))


FAULTS = {
    "array missing": (lambda root: remove(root, "crop557/ecs"), "crop557/ecs: is missing"),
    "crop missing": (lambda root: remove(root, "crop984"), "crop984: is missing, with all of its 1 array"),
    "group": (as_group, "crop557/ecs: is a group; the server takes it for missing"),
    "OME-NGFF group": (as_ome_group, "crop557/ecs: is an OME-NGFF group; the server takes it for missing"),
    "no prefix": (no_prefix, "crop984: is missing, with all of its 1 array; call the folder 984 crop984"),
    "not asked for": (not_asked_for, "crop557/ld: the manifest has no such array, and as much as one can end the"),
    "misspelt": (misspelt, "crop557/nucc: the manifest has no such array"),
    "crop not asked for": (crop_not_asked_for, "crop9/nuc: the manifest has no such crop, and as much as one can end"),
    "no longer asked for": (no_longer_asked_for, "crop984/mito: left the manifest on 2026-06-29, and as much as one"),
    "array v3": (as_v3, "crop557/ecs: is Zarr v3"),
    "root v3": (write_text("zarr.json", '{"zarr_format": 3}'), "the root: is Zarr v3"),
    "root no group": (lambda root: remove(root, ".zgroup"), "the root: has no .zgroup"),
    "crop no group": (lambda root: remove(root, "crop557/.zgroup"), "crop557: has no .zgroup"),
    "crop is array": (write_text("crop984/.zarray", "{}"), "crop984: is an array"),
    "group v9": (metadata("crop984/.zgroup", zarr_format=9), "crop984: its .zgroup says zarr_format 9"),
    "group no JSON": (write_text("crop984/.zgroup", "{"), "crop984/.zgroup: not readable as JSON"),
    "wrong shape": (wrong_shape, "crop557/ecs: has shape [70, 20, 31] where the manifest has [70, 20, 30]"),
    "wrong rank": (wrong_rank, "crop557/ecs: has 4 axes"),
    "voxel size": (
        metadata("crop557/ecs/.zattrs", voxel_size=[1.74, 2.0, 2.000001]),
        "crop557/ecs: its attribute voxel_size is [1.74, 2.0, 2.000001] where",
    ),
    "translation": (
        metadata("crop557/ecs/.zattrs", translation=[23837.13, 7598.0, 35999.0]),
        "crop557/ecs: its attribute translation",
    ),
    "shape attribute": (
        metadata("crop557/ecs/.zattrs", shape=[70, 20]),
        "crop557/ecs: its attribute shape is [70, 20]",
    ),
    "no translation": (
        metadata("crop557/ecs/.zattrs", translation=...),
        "crop557/ecs: its attributes lack translation",
    ),
    "attributes no JSON": (
        write_text("crop557/ecs/.zattrs", "voxel_size: 4"),
        "crop557/ecs/.zattrs: not readable as JSON",
    ),
    "metadata no JSON": (write_text("crop557/ecs/.zarray", "[]"), "crop557/ecs/.zarray: holds no keys"),
    "ids big-endian": (as_dtype("mito", ">u2"), "crop557/mito: has dtype >u2"),
    "ids signed": (as_dtype("mito", "<i4"), "crop557/mito: has dtype <i4"),
    "ids float": (as_dtype("mito", "<f4"), "crop557/mito: has dtype <f4"),
    "semantic uint16": (as_dtype("ecs", "<u2"), "crop557/ecs: has dtype <u2; a semantic class is uint8"),
    "semantic bool": (as_dtype("ecs", "|b1"), "crop557/ecs: has dtype |b1"),
    "codec": (metadata("crop557/ecs/.zarray", compressor={"id": "x"}), "crop557/ecs: unknown codec 'x'"),
    "fill value": (metadata("crop557/ecs/.zarray", fill_value=1), "crop557/ecs: its fill_value is 1"),
    "fill null": (metadata("crop557/ecs/.zarray", fill_value=None), "crop557/ecs: its fill_value is None"),
    "two stores": (second_store, "old.zarr: is a store inside a folder"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_named_and_told_in_one_line(tmp_path, case):
    make, expected = FAULTS[case]
    root = write(tmp_path / "s")
    make(root)
    the_only_fault_is(root, expected)


def test_files_nobody_asked_for_are_warnings(tmp_path):
    root = write(tmp_path / "s")
    for name in ("notes.txt", "crop557/notes.txt", "crop557/ecs/9.9.9"):
        (root / name).write_text("?")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/._crop557").write_text("?")
    report = checked(root)
    assert report.faults == ()
    assert sorted(report.warnings) == [
        "__MACOSX/._crop557: is no part of the store",
        "crop557/ecs: 1 file is no chunk of the array, such as 9.9.9",
        "crop557/notes.txt: is no part of the store",
        "notes.txt: is no part of the store",
    ]


@pytest.mark.parametrize("folder", ["submission.zarr", "my submission", "a/b"])
def test_a_store_inside_a_folder_is_told_once_and_still_looked_into(tmp_path, folder):
    root = write(tmp_path / "s" / folder)
    cut_chunk(root)
    faults = checked(tmp_path / "s").faults
    assert faults[0].startswith(f"{folder}: is a store inside a folder; zip what is in the folder")
    assert faults[1].startswith("crop557/mito: chunk 1.0.0 cannot be decoded") and len(faults) == 2


def test_a_store_inside_a_folder_without_a_group_is_told_once(tmp_path):
    remove(write(tmp_path / "s" / "mine"), ".zgroup")
    (fault,) = checked(tmp_path / "s").faults
    assert fault.startswith("mine: is a store inside a folder")


def test_a_zip_in_a_zip_is_named_as_what_it_is(tmp_path):
    inner = zipped(write(tmp_path / "s"))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as file:
        file.write(inner, "upload/submission.zip")
    with pytest.raises(SubmissionError, match=r"outer.zip: holds another zip, upload/submission.zip; check"):
        check(tmp_path / "outer.zip", TARGETS)


def test_what_is_wrong_with_many_arrays_is_told_once(tmp_path):
    root = write(tmp_path / "s")
    for name in TARGET.classes:
        remove(root, f"crop557/{name}")
        (root / f"crop557/{name}/.zgroup").write_text('{"zarr_format": 2}')
    (fault,) = checked(root).faults
    assert fault.startswith("crop557/ecs, crop557/mito_mem, crop557/mito_lum and 2 more: is a group; ")


def test_more_than_50_gib_is_a_fault(tmp_path):
    place = zipped(write(tmp_path / "s"))
    with zipfile.ZipFile(place, "a") as file:
        file.writestr("crop557/ecs/big", b"")
        # what the zip's directory says of a member's size is what the server adds up
        file.getinfo("crop557/ecs/big").file_size = 50 * 2**30
    (fault,) = check(place, TARGETS).faults
    assert "where 53,687,091,200 (50 GiB) are allowed" in fault


def test_a_good_arrays_metadata_have_no_fault_and_those_of_another_grid_have_them_all(tmp_path):
    with Submission.open(write(tmp_path / "s")) as submission:
        mito = submission.array("crop557", "mito")
    assert metadata_faults(mito, TARGET, "mito") == []
    assert metadata_faults(mito, SMALL, "mito") == [
        "has shape [70, 20, 30] where the manifest has [4, 5, 6]",
        "its attribute voxel_size is [1.74, 2.0, 2.0] where the manifest has [32.0, 32.0, 32.0]",
        "its attribute translation is [23837.13, 7599.0, 35999.0] where the manifest has [400012.0, 38412.0, 150412.0]",
        "its attribute shape is [70, 20, 30] where the manifest has [4, 5, 6]",
    ]
