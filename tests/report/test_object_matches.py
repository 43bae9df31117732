"""Objects of the truth, ranked by how well they are found."""

import numpy as np

from ensemble.core.box import Box
from ensemble.report.object_matches import largest_false, match_objects, objects_to_show


def test_objects_of_the_truth_are_ranked_by_how_well_they_are_found():
    truth, found = np.zeros((8, 8, 8), np.uint16), np.zeros((8, 8, 8), np.uint16)
    truth[0:2, 0:2, 0:2], found[0:2, 0:2, 0:2] = 3, 9  # found whole
    truth[4:8, 0:4, 0:4], found[4:8, 0:2, 0:4] = 5, 2  # half of it
    truth[0:2, 6:8, 6:8] = 7  # missed
    ranked, submitted = match_objects(truth, found)
    assert [(one.label, one.voxels, one.iou) for one in submitted] == [(2, 32, 0.5), (9, 8, 1.0)]
    assert list(largest_false(submitted)) == []
    assert [one.label for _, one in largest_false(match_objects(found, truth)[1])] == [7]
    assert [(one.label, one.voxels, one.iou) for one in ranked] == [(7, 8, 0.0), (5, 64, 0.5), (3, 8, 1.0)]
    assert ranked[1].box == Box((4, 0, 0), (8, 4, 4))
    assert [kind for kind, _ in objects_to_show(ranked)] == ["worst", "worst", "best"]
