"""What ``ensemble check`` promises: whatever is wrong with a submission is found, and named, from the zip."""

import zipfile

import numcodecs
import numpy as np
import pytest

from ensemble.submission.check_report import ArrayContents
from ensemble.submission.checking import check
from ensemble.submission.writer import pack
from ensemble.support.errors import SubmissionError
from tests.support.faulty import as_dtype
from tests.support.small_submission import (
    TARGET,
    TARGETS,
    checked,
    cut_chunk,
    edit,
    remove,
    write,
    zipped,
)


def test_a_good_submission_has_no_fault_and_its_contents_are_told(tmp_path):
    root = write(tmp_path / "s", attributes={"consistency": "joint"})
    pack(root, tmp_path / "s.zip", TARGETS)
    seen = []
    report = check(tmp_path / "s.zip", TARGETS, lambda done, total: seen.append((done, total)))
    assert (report.faults, report.warnings, report.ok) == ((), (), True)
    assert report.empty == ("crop984/nuc",)
    assert report.violations == {"crop557": 0, "crop984": 0}
    assert report.arrays["crop557"]["mito"] == ArrayContents(
        dtype="|u1",
        nonzero_voxels=2 * 9 * 10 * 10,
        highest_id=2,
        objects=2,
        truth_objects_needed=1,
        at_border=0,
        sizes_log2_voxels={"9": 2},  # 900 voxels each
    )
    assert report.arrays["crop557"]["mito_lum"] == ArrayContents("|u1", 2 * 5 * 6 * 6, 1)
    assert report.arrays["crop557"]["nuc"].objects == 1
    assert list(report.arrays["crop557"]) == list(TARGET.classes)
    assert seen == [(0, 2), (2, 2)]


def test_a_folder_is_checked_like_its_zip(tmp_path):
    root = write(tmp_path / "s")
    assert check(root, TARGETS) == checked(root)


@pytest.mark.parametrize("shape", [(2**40,) * 3, (2**62, 20, 30)])
def test_two_objects_at_the_ends_of_a_huge_array_cost_no_more_than_their_chunks(tmp_path, shape):
    root = write(tmp_path / "s")
    place = root / "crop557/mito"
    edit(place / ".zarray", shape=list(shape))
    last = ".".join(str((n - 1) // c) for n, c in zip(shape, (64, 20, 30), strict=True))
    masks = numcodecs.get_codec({"id": "zstd"}).encode(np.ones((64, 20, 30), np.uint8))
    edit(place / ".zarray", compressor={"id": "zstd"}, chunks=[64, 20, 30])
    for chunk in ("0.0.0", last):
        (place / chunk).write_bytes(masks)
    report = checked(root)
    assert any(fault.startswith("crop557/mito: ") and "shape" in fault for fault in report.faults)
    assert report.arrays["crop557"]["mito"].nonzero_voxels >= 64 * 20 * 30


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


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_what_is_no_zip_is_one_error(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(SubmissionError) as error:
        check(tmp_path / "x.zip", TARGETS)
    assert str(error.value).startswith(f"{tmp_path / 'x.zip'}: ") and "\n" not in str(error.value)


def test_an_interruption_stops_the_check(tmp_path):
    place = zipped(write(tmp_path / "s"))

    def interrupt(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(place, TARGETS, interrupt)
