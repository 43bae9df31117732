"""How large the objects of the truth are."""

import numpy as np

from ensemble.train.object_sizes import truth_sizes
from tests.support.annotated import noise, write_em, write_truth
from tests.support.small_crops import opened, spec_of


def test_objects_of_the_truth_are_its_ids_and_components_only_of_a_mask(tmp_path):
    write_em(tmp_path, noise(70, 8, 8))
    truth = np.zeros((70, 8, 8), np.uint16)
    truth[60:68, 0:2, 0:2] = 300  # 32 voxels in two slabs
    truth[0:1, 4:6, 4:8] = truth[30:31, 4:6, 4:8] = 7  # one id, 16 voxels
    write_truth(tmp_path, "mito", truth)
    write_truth(tmp_path, "nuc", (truth > 0).astype(np.uint8))
    crop = opened(tmp_path, spec_of(classes=["mito", "nuc"]))
    assert truth_sizes([crop], ["mito", "nuc"]) == {"mito": {"13": 1, "14": 1}, "nuc": {"12": 2, "14": 1}}
