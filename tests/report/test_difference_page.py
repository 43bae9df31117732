"""A difference as a page: the arrays that changed most, pictured where they did."""

import re
from dataclasses import replace

import numpy as np

from ensemble.report.difference import diff
from ensemble.report.difference_page import write_difference
from ensemble.submission.reader import Submission
from tests.support.small_submission import good, write, zipped


def test_the_largest_changes_are_pictured_in_the_plane_that_changed_most(tmp_path):
    masks = good()
    masks["nuc"][67, 14:20, 10:14] = 1
    masks["ecs"][67, 14:20, 10:14] = 0
    masks["ecs"][3, 0, 0] = 0
    a, b = zipped(write(tmp_path / "a")), zipped(write(tmp_path / "b", masks))
    difference = diff(a, b)
    with Submission.open(a) as first, Submission.open(b) as second:
        write_difference(difference, first, second, tmp_path / "d.html")
        page = (tmp_path / "d.html").read_text()
        write_difference(replace(difference, changes=()), first, second, tmp_path / "none.html")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing is fetched
    headings = re.findall(r'<h3>(\S+) <span class="soft">(.*?)</span></h3>', page)
    changed = [("crop557/ecs", "z = 67; 25 voxels changed in all"), ("crop557/nuc", "z = 67; 24 voxels changed in all")]
    assert headings == changed
    assert "data:image/webp" in page and "data:image/webp" not in (tmp_path / "none.html").read_text()


def test_objects_that_only_have_other_ids_have_not_changed(tmp_path):
    masks = good()
    masks["mito"] = np.where(masks["mito"] > 0, 3 - masks["mito"], 0).astype(np.uint8)
    a, b = zipped(write(tmp_path / "a")), zipped(write(tmp_path / "b", masks))
    difference = diff(a, b, page=tmp_path / "d.html")
    (mito,) = [change for change in difference.changes if change.place == "crop557/mito"]
    assert (mito.changed, mito.moved, mito.kept, dict(mito.matches)) == (0, 0, 2, {1: 2, 2: 1})
    assert "data:image/webp" not in (tmp_path / "d.html").read_text()
