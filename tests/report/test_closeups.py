"""Close-ups: the place that changed most, and the objects that are judged."""

import json

import numpy as np
import pytest

from ensemble.core.box import Box
from ensemble.decode.tile_decoding import TILE_SHAPE
from ensemble.report.build_probabilities import BuildProbabilities
from ensemble.report.closeups import change_closeups
from ensemble.report.facts import gather_facts
from ensemble.report.finished_build import FinishedBuild
from ensemble.submission.reader import Submission
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.built import OUT


def test_the_picture_of_a_change_is_of_the_plane_that_changed_most(built):
    build, check = FinishedBuild.of(OUT), json.loads((OUT / "check.json").read_text())
    facts = gather_facts(build, likely={}, registry_address="")
    probabilities = BuildProbabilities.open(build, Registry(), QuietProgress())
    with Submission.open(OUT / "submission.zip") as submission:
        shown = list(change_closeups(build, facts, submission, probabilities))
        assert [one.name for one in shown] == list(facts.consistent.decoding)
        for one in shown:
            (group, name), most = one.place.split("/"), check["decoding"][one.name]["most_changed"]
            of_class = probabilities.of(group.removeprefix("crop"), name)
            tile = Box.at(most["at_voxels"], TILE_SHAPE).intersect(of_class.plan.target.grid.box)
            p = of_class.probability.of(name, tile)
            differs = (p > one.threshold) != (submission.read(group, name, tile) > 0)
            assert np.count_nonzero(differs) == pytest.approx(most["voxels"], rel=0.02)  # a filter gives some back
            assert one.voxels == most["voxels"]
            assert one.z == tile.start[0] + differs.sum(axis=(1, 2)).argmax()
            assert all(layer.startswith("data:image/webp") for layer in (one.alone, one.written, one.changed, one.em))
