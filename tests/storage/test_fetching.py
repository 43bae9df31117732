"""What was fetched lies as in the bucket, in whole or not at all, and is not fetched again until it changes."""

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.storage.em_pyramids import EM
from ensemble.storage.fetching import EMFiles
from ensemble.support import QuietProgress
from ensemble.support.errors import EnsembleError, VolumeError
from ensemble.support.files import alone_with
from tests.storage.test_volume import GRID
from tests.support.bucket import answer
from tests.support.volumes import noise, write_em

PART = Box((0, 0, 0), (16, 16, 32))


@pytest.fixture
def em(bucket) -> EM:
    coarse = GRID.covering((16, 8, 8))
    place = write_em(bucket.folder / "em/root", "d", [(noise(GRID.shape), GRID), (noise(coarse.shape), coarse)])
    (place.parents[1] / ".zgroup").write_text('{"zarr_format": 2}')
    return EM("s3://em/root")


def files_in(folder) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_chunks_under_a_box_and_all_metadata_come(bucket, em, tmp_path):
    to, progress = tmp_path / "to", QuietProgress()
    files = EMFiles.under(em, {("d", 0): [PART, PART]})
    assert files.fetch(to, progress) == 2 + 2 + 2 * 2 + 1  # chunks; the pyramid's metadata, the levels', those above
    assert progress.said[0] == "to fetch: 9 files, 0.0 MiB; 0 files are there already"
    here, there = files_in(to), files_in(bucket.folder / "em/root")
    assert {name: there.get(name) for name in here if not name.startswith("fetched.")} == {
        name: data for name, data in here.items() if not name.startswith("fetched.")
    }
    levels = EM(to).pyramid("d").levels
    assert np.array_equal(levels[0].read(PART), noise(GRID.shape)[PART.slices])
    assert [level.grid for level in levels] == [level.grid for level in em.pyramid("d").levels]


def test_only_what_changed_or_is_lacking_comes_again(bucket, em, tmp_path):
    to = tmp_path / "to"
    EMFiles.under(em, {("d", 0): [PART]}).fetch(to, QuietProgress())
    bucket.forget()
    assert EMFiles.under(em, {("d", 0): [PART]}).fetch(to, QuietProgress()) == 0
    assert bucket.chunks() == 0
    next(to.rglob("0.0.1")).unlink()
    assert EMFiles.under(em, {("d", 0): [PART]}).fetch(to, QuietProgress()) == 1
    changed = next(bucket.folder.rglob("s0/0.0.0"))
    changed.write_bytes(changed.read_bytes()[::-1])
    assert EMFiles.under(EM("s3://em/root"), {("d", 0): [PART]}).fetch(to, QuietProgress()) == 1
    assert next(to.rglob("s0/0.0.0")).read_bytes() == changed.read_bytes()


def test_what_broke_off_goes_on_and_is_no_array_until_it_is_whole(bucket, em, tmp_path):
    to = tmp_path / "to"
    files = EMFiles.under(em, {("d", 0): [PART]})
    bucket.disturb = lambda request: answer("503 Slow Down") if request.endswith("0.0.1") else None
    with pytest.raises(VolumeError, match="in trouble"):
        files.fetch(to, QuietProgress())
    with pytest.raises(VolumeError, match="there is no Zarr array or group here"):
        EM(to).pyramid("d")
    bucket.disturb = lambda request: None
    assert files.fetch(to, QuietProgress()) == 8


def test_what_changes_meanwhile_is_refused_and_one_folder_is_one_processs(bucket, em, tmp_path):
    to = tmp_path / "to"
    files = EMFiles.under(em, {("d", 0): [PART]})
    next(bucket.folder.rglob("s0/0.0.0")).write_bytes(b"other")
    with pytest.raises(VolumeError, match=r"s0/0\.0\.0: it was changed while it was fetched"):
        files.fetch(to, QuietProgress())
    with alone_with(to / "fetched.lock", ""), pytest.raises(EnsembleError, match="another process fetches into it"):
        files.fetch(to, QuietProgress())


def test_metadata_that_lead_elsewhere_are_not_followed(bucket, em):
    attributes = next(bucket.folder.rglob("fibsem-uint8/.zattrs"))
    attributes.write_text(attributes.read_text().replace('"s1"', '"../../../../../../../s1"'))
    with pytest.raises(VolumeError):
        EMFiles.under(EM("s3://em/root"), {("d", 0): [PART]})


def test_what_lies_here_needs_no_fetching(bucket, em):
    with pytest.raises(VolumeError, match="lies on this machine already; name a URL with --data"):
        EMFiles.under(EM(bucket.folder / "em/root"), {("d", 0): [PART]})
