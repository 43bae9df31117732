"""What a report counts, ranks and picks, without a build."""

import json

import numpy as np
import pytest

from ensemble.methods.sizes import add_sizes_nm3, count_sizes_nm3, size_histogram
from ensemble.report import object_matches as judged
from ensemble.report import page, pictures


def test_text_in_a_recipe_is_text_on_the_page():
    said = json.loads(page._embedded({"name": "</script><b>&"}))
    assert said == {"name": "</script><b>&"}
    assert "<" not in page._embedded({"name": "</script>"})


def test_objects_are_counted_by_the_power_of_two_of_their_size():
    assert size_histogram(np.array([1, 2, 3, 4, 7, 8])) == {"0": 1, "1": 2, "2": 2, "3": 1}
    total = {"3": 1}
    add_sizes_nm3(total, {"0": 2, "4": 1}, (2, 2, 2))
    assert total == {"3": 3, "7": 1}
    total = {}
    count_sizes_nm3(total, np.array([1, 100, 150]), (1.74, 2, 2))  # 6.96, 696 and 1044 nm3
    assert total == {"2": 1, "9": 1, "10": 1}


def test_objects_of_the_truth_are_ranked_by_how_well_they_are_found():
    truth, found = np.zeros((8, 8, 8), np.uint16), np.zeros((8, 8, 8), np.uint16)
    truth[0:2, 0:2, 0:2], found[0:2, 0:2, 0:2] = 3, 9  # found whole
    truth[4:8, 0:4, 0:4], found[4:8, 0:2, 0:4] = 5, 2  # half of it
    truth[0:2, 6:8, 6:8] = 7  # missed
    ranked, submitted = judged.match_objects(truth, found)
    assert [(one.label, one.voxels, one.iou) for one in submitted] == [(2, 32, 0.5), (9, 8, 1.0)]
    assert list(judged.false(submitted)) == []
    assert [one.label for _, one in judged.false(judged.match_objects(found, truth)[1])] == [7]
    assert [(one.label, one.voxels, one.iou) for one in ranked] == [(7, 8, 0.0), (5, 64, 0.5), (3, 8, 1.0)]
    assert ranked[1].box == (slice(4, 8), slice(0, 4), slice(0, 4))
    assert [kind for kind, _ in judged.chosen(ranked)] == ["worst", "worst", "best"]


def test_pictures_stay_small_where_arrays_are_many():
    assert [pictures.size_for(n) for n in (10, 100, 413)] == [(256, 3), (192, 3), (128, 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 17, 100])
def test_the_slider_holds_the_busiest_plane_and_as_many_beside_it_as_there_are(size):
    for busiest in range(size):
        planes = pictures._planes(busiest, size, 3)
        assert busiest in planes and planes == sorted(set(planes))
        assert len(planes) == min(size, 3)
        assert planes[0] >= 0 and planes[-1] < size
        assert pictures._planes(busiest, size, 1) == [busiest]
