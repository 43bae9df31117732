"""What an empty array might have held."""

from pathlib import Path

import numpy as np

from ensemble.core.manifest import Target
from ensemble.plan.plan import CropPlan
from ensemble.plan.plan_description import PlanCost, PlanDescription
from ensemble.report.build_probabilities import BuildProbabilities
from ensemble.report.finished_build import BuildCosts, FinishedBuild
from ensemble.report.gallery import find_peaks
from ensemble.submission.check_report import CheckReport
from tests.support.known_crop import GRID, SHAPE, Given, cloud, route


def test_the_peak_of_an_empty_array_is_the_highest_probability_and_where_it_is():
    p = cloud(np.random.default_rng(3))
    empty = ("crop1/mito", "crop1/nuc", "crop1/er", "crop2/mito")
    check = CheckReport((), (), "", empty, {}, {}, {}, {}, {})
    described = PlanDescription("r", "none", {}, {}, PlanCost(0, 0, 0, 0, 0, 0, 0))
    build = FinishedBuild(Path("out"), described, check, "data", BuildCosts(), None)
    plan = CropPlan(
        Target("1", "d", GRID, ("nuc", "mito", "er")), {name: route() for name in ("nuc", "mito")}, ("nuc", "mito"), ()
    )
    fields = {("mito", "s"): p, ("nuc", "s"): Given(np.zeros(SHAPE, np.float32))}
    found = find_peaks(build, BuildProbabilities({"1": plan}, {"1": fields}))
    assert set(found) == {"crop1/mito", "crop1/nuc"}  # er is not claimed, and crop 2 is not at hand
    assert found["crop1/mito"].at_voxels == np.unravel_index(p.values.argmax(), SHAPE)
    assert found["crop1/mito"].probability == p.values.max()
    assert found["crop1/nuc"].probability == 0
