"""Which EM a job reads."""

import numpy as np

from ensemble.core.manifest import Target
from ensemble.predict.tissues import tissue_of
from tests.support.inference import CLASSES, a_volume, card, job


def test_a_job_reads_the_level_and_the_box_that_were_planned(tmp_path) -> None:
    array, grid, em = a_volume(tmp_path, (30, 40, 50))
    one = job(tmp_path, Target("1", "d", grid, CLASSES), em, card())
    tissue = tissue_of(em, one)
    assert tissue.box == one.tissue_box
    assert np.array_equal(tissue.read(tissue.box), array[tissue.box.slices])
