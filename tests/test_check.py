"""What ``ensemble check`` promises: whatever is wrong with a submission is found, and named, from the zip."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from small_submission import (
    SHAPE,
    SMALL,
    TARGET,
    TARGETS,
    checked,
    cut_chunk,
    edit,
    good,
    remove,
    rewrite,
    write,
    zipped,
)

from ensemble.core.manifest import Target
from ensemble.submission.checking import check
from ensemble.submission.writer import create_array, pack
from ensemble.support.errors import SubmissionError


def test_a_good_submission_has_no_fault_and_its_contents_are_told(tmp_path):
    root = write(tmp_path / "s", attributes={"consistency": "joint"})
    pack(root, tmp_path / "s.zip", TARGETS)
    seen = []
    report = check(tmp_path / "s.zip", TARGETS, lambda done, total: seen.append((done, total)))
    assert (report.faults, report.warnings, report.ok) == ((), (), True)
    assert report.empty == ("crop984/nuc",)
    assert report.violations == {"crop557": 0, "crop984": 0}
    assert report.arrays["crop557"]["mito"] == {
        "dtype": "|u1",
        "nonzero_voxels": 2 * 9 * 10 * 10,
        "highest_id": 2,
        "objects": 2,
        "truth_objects_needed": 1,
        "at_border": 0,
        "sizes_log2_voxels": {"9": 2},  # 900 voxels each
    }
    assert report.arrays["crop557"]["mito_lum"] == {
        "dtype": "|u1",
        "nonzero_voxels": 2 * 5 * 6 * 6,
        "highest_id": 1,
    }
    assert report.arrays["crop557"]["nuc"]["objects"] == 1
    assert list(report.arrays["crop557"]) == list(TARGET.classes)
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_a_folder_is_checked_like_its_zip(tmp_path):
    root = write(tmp_path / "s")
    assert check(root, TARGETS) == checked(root)


def test_the_report_is_the_same_as_json(tmp_path):
    data = json.loads(checked(write(tmp_path / "s")).to_json())
    assert data["faults"] == [] and data["empty"] == ["crop984/nuc"]
    assert data["arrays"]["crop557"]["ecs"]["dtype"] == "|u1"


# Faults: each is made by hand in a good store, and must be the only one found.


def as_group(root: Path) -> None:
    (root / "crop557/ecs").rename(root / "s0")
    (root / "crop557/ecs").mkdir()
    (root / "s0").rename(root / "crop557/ecs/s0")
    (root / "crop557/ecs/.zgroup").write_text('{"zarr_format": 2}')


def as_v3(root: Path) -> None:
    remove(root, "crop557/ecs")
    (root / "crop557/ecs/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')


def value_two(root: Path) -> None:
    mask = good()["ecs"]
    mask[65, 19, 4] = 2
    rewrite(root, "ecs", mask)


def as_dtype(name: str, dtype: str) -> Callable[[Path], None]:
    return lambda root: rewrite(root, name, good()[name].astype(dtype))


def metadata(name: str, **changes) -> Callable[[Path], None]:
    return lambda root: edit(root / name, **changes)


def write_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text)


def short_chunk(root: Path) -> None:
    (root / "crop557/mito/1.0.0").write_bytes(numcodecs.Zstd().encode(bytes(99)))


def second_store(root: Path) -> None:
    (root / "old.zarr").mkdir()
    (root / "old.zarr/.zgroup").write_text('{"zarr_format": 2}')


def wrong_shape(root: Path) -> None:
    rewrite(root, "ecs", np.ones((70, 20, 31), np.uint8))


def wrong_rank(root: Path) -> None:
    rewrite(root, "ecs", np.ones((1, *SHAPE), np.uint8), chunks=(1, 64, 20, 30))


FAULTS = {
    "array missing": (lambda root: remove(root, "crop557/ecs"), "crop557/ecs: is missing"),
    "crop missing": (lambda root: remove(root, "crop984"), "crop984: is missing, with all of its 1 arrays"),
    "group": (as_group, "crop557/ecs: is a group"),
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
    "semantic values": (value_two, "crop557/ecs: chunk 1.0.0 holds 2 at voxel (65, 19, 4)"),
    "codec": (metadata("crop557/ecs/.zarray", compressor={"id": "x"}), "crop557/ecs: unknown codec 'x'"),
    "fill value": (metadata("crop557/ecs/.zarray", fill_value=1), "crop557/ecs: its fill_value is 1"),
    "fill null": (metadata("crop557/ecs/.zarray", fill_value=None), "crop557/ecs: its fill_value is None"),
    "chunk cut": (cut_chunk, "crop557/mito: chunk 1.0.0 cannot be decoded"),
    "chunk short": (short_chunk, "crop557/mito: chunk 1.0.0 cannot be decoded: it holds 99 bytes"),
    "chunk garbage": (write_text("crop557/mito/0.0.0", "?" * 50), "crop557/mito: chunk 0.0.0 cannot"),
    "two stores": (second_store, "old.zarr: is a store inside a folder"),
    "unclaimed": (
        metadata(".zattrs", unclaimed={"crop557": ["ecs"]}),
        "crop557/ecs: is listed as unclaimed but has",
    ),
    "unclaimed type": (metadata(".zattrs", unclaimed=["ecs"]), "root attribute unclaimed"),
    "consistency type": (metadata(".zattrs", consistency="joined"), "root attribute consistency is 'joined'"),
    "decoding type": (metadata(".zattrs", decoding={"crop557": 3}), "root attribute decoding"),
    "decoding place": (
        metadata(
            ".zattrs",
            decoding={"crop557": {"mito": {"alone": 1, "removed": 0, "added": 0, "most_at_voxels": [0, -1, 0]}}},
        ),
        "root attribute decoding",
    ),
    "decoding class": (
        metadata(".zattrs", decoding={"crop557": {"[/x]": {"alone": 1, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "decoding huge": (
        metadata(".zattrs", decoding={"crop557": {"mito": {"alone": 10**400, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "decoding bool": (
        metadata(".zattrs", decoding={"crop557": {"mito": {"alone": True, "removed": 0, "added": 0}}}),
        "root attribute decoding",
    ),
    "before type": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3}}),
        "root attribute contradictions_before",
    ),
    "before words": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3, "relations": {"[/red] outside mito": 1}}}),
        "root attribute contradictions_before",
    ),
    "before count": (
        metadata(".zattrs", contradictions_before={"crop557": {"voxels": 3, "relations": {"mito outside cell": 4}}}),
        "root attribute contradictions_before",
    ),
    "root no JSON": (write_text(".zattrs", "{"), ".zattrs: not readable as JSON"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_named_and_told_in_one_line(tmp_path, case):
    make, expected = FAULTS[case]
    root = write(tmp_path / "s")
    make(root)
    report = checked(root)
    assert len(report.faults) == 1 and not report.ok
    assert report.faults[0].startswith(expected)
    assert "\n" not in report.faults[0]


def test_values_between_0_and_1_are_a_fault_beside_the_dtype(tmp_path):
    root = write(tmp_path / "s")
    rewrite(root, "ecs", good()["ecs"].astype("<f4") * np.float32(0.25))
    report = checked(root)
    assert [fault.split(";")[0] for fault in report.faults] == [
        "crop557/ecs: has dtype <f4",
        "crop557/ecs: chunk 0.0.0 holds 0.25 at voxel (0, 0, 0)",
        "crop557/ecs: chunk 1.0.0 holds 0.25 at voxel (64, 0, 0)",
    ]


def test_every_fault_is_named_in_one_run(tmp_path):
    root = write(tmp_path / "s")
    remove(root, "crop557/ecs")
    remove(root, ".zgroup")
    as_dtype("nuc", "<i2")(root)
    edit(root / "crop984/nuc/.zattrs", translation=..., voxel_size=...)
    edit(root / "crop557/mito_lum/.zarray", fill_value=3)
    cut_chunk(root)
    (root / "crop557/mito/0.0.0").write_bytes(b"")
    report = checked(root)
    expected = (
        "the root: has no .zgroup",
        "crop557/ecs: is missing",
        "crop557/mito_lum: its fill_value is 3",
        "crop557/nuc: has dtype <i2",
        "crop984/nuc: its attributes lack voxel_size",
        "crop984/nuc: its attributes lack translation",
        "crop557/mito: chunk 0.0.0 cannot be decoded",
        "crop557/mito: chunk 1.0.0 cannot be decoded",
    )
    assert len(report.faults) == len(expected)
    for fault, start in zip(report.faults, expected, strict=True):
        assert fault.startswith(start)


def test_many_damaged_chunks_are_counted_after_the_first_twenty(tmp_path):
    root = write(tmp_path / "s")
    rewrite(root, "ecs", good()["ecs"], chunks=(2, 20, 30))
    for chunk in (root / "crop557/ecs").glob("*.0.0"):
        chunk.write_bytes(b"?")
    faults = checked(root).faults
    assert len(faults) == 21
    assert faults[-1] == "crop557/ecs: 15 more chunks cannot be decoded"


def test_arrays_and_files_nobody_asked_for_are_warnings(tmp_path):
    root = write(tmp_path / "s")
    create_array(root, TARGET, "ld", np.uint8)
    create_array(root, Target("9", "x", SMALL.grid, ()), "nuc", np.uint8)
    for name in ("notes.txt", "crop557/notes.txt", "crop557/ecs/9.9.9"):
        (root / name).write_text("?")
    report = checked(root)
    assert report.faults == ()
    assert sorted(report.warnings) == [
        "crop557/ecs: 1 files are no chunk of the array, such as 9.9.9",
        "crop557/ld: the manifest has no such array",
        "crop557/notes.txt: is no part of the store",
        "crop9: the manifest has no such crop",
        "notes.txt: is no part of the store",
    ]


def test_an_unreadable_array_is_a_fault_even_where_nobody_asked_for_it(tmp_path):
    root = write(tmp_path / "s")
    create_array(root, TARGET, "ld", np.uint8)[:] = 1
    (root / "crop557/ld/0.0.0").write_bytes(b"?")
    create_array(root, TARGET, "ves", np.uint8)
    edit(root / "crop557/ves/.zarray", compressor={"id": "x"})
    faults = checked(root).faults
    assert faults[0].startswith("crop557/ves: unknown codec")
    assert faults[1].startswith("crop557/ld: chunk 0.0.0 cannot be decoded") and len(faults) == 2


def test_a_store_inside_a_folder_is_told_and_still_looked_into(tmp_path):
    root = write(tmp_path / "s" / "submission.zarr")
    cut_chunk(root)
    faults = checked(tmp_path / "s").faults
    assert faults[0].startswith("submission.zarr: is a store inside a folder")
    assert faults[1].startswith("crop557/mito: chunk 1.0.0 cannot be decoded") and len(faults) == 2


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("crop557/../x", 0o100644, "leaves the store"),
        ("/x", 0o100644, "not a relative name"),
        ("crop557/ecs/0.0.0", 0o120777, "is a symbolic link"),
        ("crop557/ecs/0.0.0", 0o100644, "is in the zip twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_members_are_named_and_never_read(tmp_path, name, mode, reason):
    place = zipped(write(tmp_path / "s"))
    with zipfile.ZipFile(place, "a") as file:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        file.writestr(info, "../../etc/passwd")
    faults = check(place, TARGETS).faults
    assert len(faults) == 1 and faults[0].startswith(f"{name}: ") and reason in faults[0]


def test_a_member_whose_bytes_changed_is_named(tmp_path):
    place = zipped(write(tmp_path / "s"))
    with zipfile.ZipFile(place) as file:
        info = file.getinfo("crop557/mito/1.0.0")
        at = info.header_offset + 30 + len(info.filename) + info.file_size // 2
    content = bytearray(place.read_bytes())
    content[at] ^= 0xFF
    place.write_bytes(content)
    (fault,) = check(place, TARGETS).faults
    assert fault.startswith("crop557/mito: chunk 1.0.0 cannot be decoded: Bad CRC-32")


def test_more_than_50_gib_is_a_fault(tmp_path):
    place = zipped(write(tmp_path / "s"))
    with zipfile.ZipFile(place, "a") as file:
        file.writestr("crop557/ecs/big", b"")
        # what the zip's directory says of a member's size is what the server adds up
        file.getinfo("crop557/ecs/big").file_size = 50 * 2**30
    (fault,) = check(place, TARGETS).faults
    assert "where 53,687,091,200 (50 GiB) are allowed" in fault


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_what_is_no_zip_is_one_error(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SubmissionError) as error:
        check(tmp_path / "x.zip", TARGETS)
    assert str(error.value).startswith(f"{tmp_path / 'x.zip'}: ") and "\n" not in str(error.value)
