"""What a participant relies on when a submission is written and packed."""

import errno
import json
import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from ensemble.core.box import Box
from ensemble.core.tiling import slabs
from ensemble.storage.opening import open_volume
from ensemble.submission.writer import create_array, pack, write_group_files
from ensemble.support.errors import SubmissionError
from tests.support.processes import python
from tests.support.small_store import COARSE, FINE, TARGETS, labels


def test_an_array_lies_on_the_manifests_grid_to_the_letter(store):
    attributes = json.loads((store / "crop557/mito/.zattrs").read_text())
    assert attributes == {
        "voxel_size": [1.74, 2.0, 2.0],
        "translation": [23837.13, 7599.0, 35999.0],
        "shape": [70, 130, 40],
    }
    metadata = json.loads((store / "crop557/mito/.zarray").read_text())
    wanted = {
        "zarr_format": 2,
        "shape": [70, 130, 40],
        "chunks": [64, 128, 40],
        "dtype": "<u2",
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": ".",
    }
    assert {key: metadata[key] for key in wanted} == wanted
    assert metadata["compressor"]["id"] == "zstd"


def test_what_stays_background_takes_no_chunk(store):
    assert sorted(os.listdir(store / "crop557/er")) == [".zarray", ".zattrs"]
    assert "1.1.0" in os.listdir(store / "crop557/mito")


def test_a_new_array_replaces_the_old_one_with_all_its_chunks(tmp_path):
    create_array(tmp_path, FINE, "mito", np.uint16)[FINE.grid.box] = 7
    create_array(tmp_path, FINE, "mito", np.uint8)[Box.of_shape((2, 130, 40))] = 1
    again = zarr.open(str(tmp_path / "crop557/mito"), mode="r")
    assert (again.dtype, int(again[:].sum())) == (np.uint8, 2 * 130 * 40)


def test_an_array_is_written_further_where_it_was_left_by_anyone_who_keeps_it(tmp_path):
    values = labels(FINE, 0)
    first, second = slabs(FINE.grid.shape)
    create_array(tmp_path, FINE, "mito", np.uint16)[first] = values[first.slices]
    (tmp_path / "crop557/mito/.zarray").write_text("spoilt")
    create_array(tmp_path, FINE, "mito", np.uint16, keep=True)[second] = values[second.slices]
    volume = open_volume(tmp_path / "crop557/mito")
    assert volume.grid == FINE.grid
    assert np.array_equal(volume.read(FINE.grid.box), values)
    assert not create_array(tmp_path, FINE, "er", np.uint16, keep=True)[FINE.grid.box].any()


def test_zarr_itself_reads_the_packed_zip_as_groups_of_plain_arrays(packed):
    with zarr.storage.ZipStore(packed, mode="r") as zipped:
        group = zarr.open_group(zipped, mode="r", zarr_format=2)
        assert dict(group.attrs) == {"unclaimed": {"crop557": ["er"]}}
        assert sorted(group["crop557"].array_keys()) == ["er", "mito"]
        np.testing.assert_array_equal(group["crop557/mito"][:], labels(FINE, 0))
        np.testing.assert_array_equal(group["crop984/nuc"][:], labels(COARSE, 1))


def test_the_same_store_gives_the_same_bytes(packed, tmp_path):
    write_group_files(tmp_path / "again", TARGETS, {"unclaimed": {"crop557": ["er"]}})
    for target, name, seed in ((COARSE, "nuc", 1), (FINE, "er", None), (FINE, "mito", 0)):
        array = create_array(tmp_path / "again", target, name, np.uint16)
        if seed is not None:
            for slab in reversed(slabs(target.grid.shape)):
                array[slab] = labels(target, seed)[slab.slices]
    for path in (tmp_path / "again").rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(path.stat().st_mode & 0o700)
    pack(tmp_path / "again", tmp_path / "again.zip", TARGETS)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_members_are_stored_plain_files_in_order(packed):
    with zipfile.ZipFile(packed) as file:
        infos = file.infolist()
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {stat.S_IFREG | 0o644}


def test_leftovers_stay_out_of_the_zip(store, packed, tmp_path):
    littered = tmp_path / "littered"
    shutil.copytree(store, littered)
    create_array(littered, FINE, "nuc", np.uint8)[FINE.grid.box] = 1
    shutil.copytree(littered / "crop557", littered / "crop558")
    for name in ("notes.txt", "mito/0.0.0.c3f2.partial", "mito/.zattrs.12.part", ".DS_Store"):
        (littered / "crop557" / name).write_text("left over")
    pack(littered, tmp_path / "littered.zip", TARGETS)
    assert (tmp_path / "littered.zip").read_bytes() == packed.read_bytes()


def test_progress_counts_up_to_every_file(store, tmp_path):
    seen = []
    pack(store, tmp_path / "out.zip", TARGETS, lambda done, total: seen.append((done, total)))
    files = [path for path in store.rglob("*") if path.is_file()]
    assert seen == [(n, len(files)) for n in range(1, len(files) + 1)]


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_array_that_was_never_written_is_told_and_the_older_zip_stays(store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/crop557/mito")
    (tmp_path / "out.zip").write_bytes(b"older")
    with pytest.raises(SubmissionError, match=r"crop557/mito/\.zarray: there is no such file"):
        pack(tmp_path / "store", tmp_path / "out.zip", TARGETS)
    assert (tmp_path / "out.zip").read_bytes() == b"older"
    assert nothing_but(tmp_path, "store", "out.zip")


def test_an_interruption_passes_through_and_leaves_the_older_zip(store, tmp_path):
    (tmp_path / "out.zip").write_bytes(b"older")

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(store, tmp_path / "out.zip", TARGETS, interrupt)
    assert (tmp_path / "out.zip").read_bytes() == b"older"
    assert nothing_but(tmp_path, "out.zip")


PACK_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from ensemble.submission.writer import pack
from ensemble.support.errors import SubmissionError, VolumeError
from tests.support.small_store import TARGETS
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    pack(Path(sys.argv[1]), Path(sys.argv[2]), TARGETS)
except SubmissionError as error:
    sys.exit(str(error))
"""


def test_a_file_that_cannot_grow_leaves_the_older_zip(store, tmp_path):
    (tmp_path / "out.zip").write_bytes(b"older")
    ran = python(PACK_UNDER_A_LIMIT, store, tmp_path / "out.zip")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"{tmp_path / 'out.zip'}: the disk is full") and ran.stderr.count("\n") == 1
    assert (tmp_path / "out.zip").read_bytes() == b"older"
    assert nothing_but(tmp_path, "out.zip")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_older_zip(store, small_disk):
    (small_disk / "out.zip").write_bytes(b"older")
    with pytest.raises(SubmissionError, match="the disk is full") as caught:
        pack(store, small_disk / "out.zip", TARGETS)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ENOSPC
    assert (small_disk / "out.zip").read_bytes() == b"older"
    assert nothing_but(small_disk, "out.zip")


def test_a_place_that_cannot_be_written_is_told_in_one_line(store, tmp_path):
    (tmp_path / "nowhere").write_text("a file where a folder is expected")
    with pytest.raises(SubmissionError, match="cannot pack") as caught:
        pack(store, tmp_path / "nowhere" / "out.zip", TARGETS)
    assert str(caught.value).startswith(f"{tmp_path}/nowhere/out.zip: ") and "\n" not in str(caught.value)
    assert nothing_but(tmp_path, "nowhere")
